"""What can be chosen from: runs and their checkpoints, as selects have them."""

from asr_dni.catalogue import Catalogue, Run


def run_choices(catalogue: Catalogue, with_checkpoint: bool = False) -> list[dict[str, str]]:
    """Return the runs as options of a select: what they are, and where.

    Args:
        catalogue: of the runs.
        with_checkpoint: only those that have one.
    """
    frame = catalogue.runs()
    choices = []
    for run, label in zip(frame["run"], frame["label"], strict=True):
        if with_checkpoint and not catalogue.run(run).checkpoints():
            continue
        name = catalogue.folder.name if run == "." else run
        choices.append({"value": run, "label": f"{label} · {name}"})
    return choices


def checkpoint_choices(run: Run) -> list[str]:
    """Return the names of a run's checkpoints, the last one first."""
    return [path.name for path in run.checkpoints()]
