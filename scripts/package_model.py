"""Make a run one of the networks that come with the package: asr_dni/models/NAME.ckpt, .csv and .yaml.

    python scripts/package_model.py RUN NAME --summary "..." --recommended_for "..." --command "asr-dni fit ..."

Of the checkpoint only what running it needs is kept: no optimiser, no state of the training.
"""

import argparse
from pathlib import Path

import yaml
from mistakes import told_in_a_line

from asr_dni.checkpoint import read_checkpoint, write_checkpoint
from asr_dni.evaluation import NoiseCurve
from asr_dni.files import write_atomically
from asr_dni.model import KeywordSpotter
from asr_dni.models import FOLDER, PackagedModel

LARGEST = 1_000_000
"""Bytes of a checkpoint, at most."""

NEEDED = (
    "epoch",
    "global_step",
    "pytorch-lightning_version",
    "state_dict",
    "hyper_parameters",
    "datamodule_hyper_parameters",
    "KeywordData",
    "trainings",
    "sigma_train",
)
DATA = (
    "Speech Commands (P. Warden, arXiv:1804.03209), recordings of eight words by volunteers, licence CC BY 4.0:"
    " {source}, {words}"
)
PROTOCOL = (
    "speakers fall into splits by the data set's rule; {clips} test clips by people who are not in the training,"
    " {draws} draws of the noise; nothing was chosen on them"
)


def main() -> None:
    """Package a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--summary", required=True)
    parser.add_argument("--recommended_for", required=True)
    parser.add_argument("--command", required=True, help="the command that trained it")
    options = parser.parse_args()
    contents = read_checkpoint(options.run / "checkpoints" / "last.ckpt")
    curve = NoiseCurve.from_csv(options.run / "noise_curve.csv")
    labels = contents["KeywordData"]["label_names"]
    card = {
        "summary": options.summary,
        "recommended_for": options.recommended_for,
        "data": DATA.format(source=contents["KeywordData"]["source"], words=", ".join(labels)),
        "protocol": PROTOCOL.format(clips=int(curve.frame["n_clips"].iloc[0]), draws=curve.settings["draws"]),
        "training": options.command,
        "parameters": sum(its.numel() for its in KeywordSpotter.from_checkpoint(contents).parameters()),
        "labels": labels,
    }
    PackagedModel(options.name, **card)
    checkpoint = FOLDER / f"{options.name}.ckpt"
    write_checkpoint({key: contents[key] for key in NEEDED if key in contents}, checkpoint)
    size = checkpoint.stat().st_size
    if size > LARGEST:
        checkpoint.unlink()
        raise SystemExit(f"{checkpoint}: would have {size:,} bytes, more than {LARGEST:,}")
    settings = {key: value for key, value in curve.settings.items() if key != "checkpoint"}
    NoiseCurve(curve.frame, settings).to_csv(FOLDER / f"{options.name}.csv")
    with write_atomically(FOLDER / f"{options.name}.yaml") as temporary:
        temporary.write_text(
            yaml.safe_dump(card, sort_keys=False, width=110, allow_unicode=True), encoding="utf-8"
        )
    print(f"{checkpoint}: {size:,} bytes")


if __name__ == "__main__":
    with told_in_a_line():
        main()
