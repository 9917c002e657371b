"""What the dashboard measures of a run itself: as ``asr-dni evaluate`` does, on Gaussian noise."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from asr_dni.dashboard.measurements import Report
from asr_dni.evaluation.curves.axes import SIGMAS
from asr_dni.evaluation.questions.folder import FOLDER
from asr_dni.noise import Noise

if TYPE_CHECKING:
    from asr_dni.evaluation.questions.evaluate import Subject

DRAWS = 10

SUBJECTS: tuple["Subject", ...] = ("curve", "classes", "calibration", "voting", "clips")
"""What one measurement of the noise is enough for; the sensitivity takes many more."""


def measuring(checkpoint: Path, run: Path, subjects: Collection["Subject"]) -> Callable[[Report], None]:
    """Return what evaluates a network on the test split of its data, and writes the tables into the run's folder.

    It has a network of its own, so that others can go on with theirs; what was measured when it is cancelled is kept,
    and measured no second time.

    Args:
        checkpoint: of the network.
        run: folder of the run.
        subjects: which tables.
    """

    def work(report: Report) -> None:
        from asr_dni.evaluation.measurement.outcomes import EvaluationSet, OutcomeStore
        from asr_dni.evaluation.measurement.sweep import Sweep
        from asr_dni.evaluation.questions.evaluate import PARTS, Request, evaluate_network
        from asr_dni.inference import load

        spotter = load(checkpoint)
        data = spotter.data(bring=False)
        report(0, 0)
        clips = EvaluationSet(data.batches("test"))
        request = Request(Sweep(SIGMAS, DRAWS, Noise()), subjects)
        folder = run / FOLDER
        store = OutcomeStore(spotter.network, clips, folder / PARTS)
        total, done = request.passes(store) * len(clips.batches), 0

        def advance(passes: int) -> None:
            nonlocal done
            done += passes
            report(done, total)

        settings = {**spotter.settings_on(data), "hardware_name": "gaussian"}
        place = getattr(getattr(data, "source", None), "path", None)
        if isinstance(place, Path):
            settings["data_folder"] = str(place.resolve())
        evaluate_network(
            store,
            request,
            folder,
            settings,
            spotter.label_names,
            data.clip_names(clips.clip_ids),
            advance,
        )

    return work
