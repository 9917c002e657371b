"""``asr-dni study status``: how far a study is, while it runs too."""

from collections.abc import Sequence

from asr_dni.cli.study.command_line import folder_of
from asr_dni.cli.study.damages import tell_damages
from asr_dni.cli.study.progress import describe_survey, draw_survey
from asr_dni.errors import UserError


def show_status(arguments: Sequence[str]) -> None:
    """Run ``asr-dni study status``."""
    path = folder_of("status", arguments)
    from asr_dni.study.folder import StudyFolder
    from asr_dni.study.plan import Population, plan_members
    from asr_dni.study.survey import survey
    from asr_dni.study.work import data_size
    from asr_dni.terminal import make_console

    folder = StudyFolder(path)
    study = folder.read_study()
    data = study.make_data(0)
    members = plan_members(study, data)
    by_training = {member.training: member for member in members}
    populations = [
        Population(tuple(by_training[training] for training in trainings))
        for trainings in folder.recorded_populations().values()
        if all(training in by_training for training in trainings)
    ]
    try:
        data.setup("fit")
        data.setup("test" if study.settings.evaluation.split == "test" else "validate")
        size = data_size(study, data)
    except (UserError, OSError):  # without the data there is no estimate
        size = None
    running = sum(folder.claimed(population.id) for population in populations)
    found = survey(study, folder, members, populations, size, max(1, running))
    console = make_console()
    console.print(f"study {study.settings.name} in {path}", soft_wrap=True, highlight=False)
    tell_damages(folder.ledger.damages(), console)
    console.print(draw_survey(found) if console.is_terminal else describe_survey(found))
    for population in populations:
        progress = folder.progress(population.id)
        if progress.state == "failed":
            console.print(
                f"{population.title}: given up: {progress.message}", soft_wrap=True, highlight=False
            )
    others = len(folder.ledger.members()) - found.done
    if others > 0:
        console.print(f"{others} further results are of other settings of this study", highlight=False)
