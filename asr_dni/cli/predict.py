"""``asr-dni predict CHECKPOINT FILES...``: a network's decisions on recordings."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO, TypeAlias

from rich.text import Text

from asr_dni.cli.functions import CHECKPOINT, progress_bar, run_function
from asr_dni.data.source import AUDIO_SUFFIXES
from asr_dni.device import choose_device
from asr_dni.errors import UserError, first_few, printable
from asr_dni.evaluation.measurement.sweep import check_sites
from asr_dni.files import write_atomically
from asr_dni.hardware_files import noise_of
from asr_dni.inference import FilePrediction, Spotter, load
from asr_dni.inference.clips import check_hop
from asr_dni.inference.compensation import compensate_noise, remark_without_effect
from asr_dni.noise import MVM_SITES, Arrays, Scale, Site
from asr_dni.terminal import make_console
from asr_dni.wording import count

_ENDINGS = ", ".join(sorted(AUDIO_SUFFIXES))
_EPILOG = (
    f"A folder is searched with all folders in it, hidden ones left out, for files that end in {_ENDINGS}."
    " A clip is as long as in training: of a longer recording the beginning is heard, unless --hop is given; a shorter"
    " one is followed by silence. A file that cannot be used is reported in its row and on standard error, and the"
    " others go on; the exit code is then 1, otherwise 0. A checkpoint's decisions on its own test split:"
    " asr-dni predict --ckpt_path CHECKPOINT (with --help: its settings)."
)
_OF_A_RUN = ("--ckpt_path", "--config", "-c", "--print_config")
"""Settings of Lightning's ``predict``, which decides on the split that a run's configuration describes."""
_FORMATS = ("table", "csv", "jsonl")
_LISTED = 3

Writer: TypeAlias = Callable[[FilePrediction], None]


def predict(
    checkpoint: Path,
    files: list[Path],
    format: Literal["table", "csv", "jsonl"] | None = None,
    output: Path | None = None,
    sigma: float = 0.0,
    hardware: str | None = None,
    chip: int = 0,
    scale: Scale = "absolute",
    sites: list[Site] = list(MVM_SITES),  # noqa: B006  shown as the default on the command line
    arrays: Arrays = "joint",
    seed: int = 0,
    compensation: Literal["auto"] | float | None = None,
    draws: int = 1,
    hop: float | None = None,
    batch_size: int = 256,
    device: str = "auto",
) -> None:
    """Write a network's decisions on recordings (WAV, FLAC, Ogg, MP3; any rate, any number of channels).

    Args:
        checkpoint: a .ckpt file that asr-dni fit wrote.
        files: recordings, or folders that are searched for them.
        format: table, csv (a column per label) or jsonl (an object per line); by default what the ending of the output
            says, else table.
        output: file for csv or jsonl, written whole or not at all; without it they go to standard output.
        sigma: strength of the noise at inference; 0 is none.
        hardware: runs on any other hardware than the additive Gaussian one: a name, such as noisy_weights, or a YAML
            file; sigma, scale, sites and arrays are then its own.
        chip: which chip, where weights differ from chip to chip.
        scale: what sigma is measured in.
        sites: where the noise enters.
        arrays: whether W_ih and W_hh share one array, and one noise per pre-activation (joint), or have one each.
        seed: of the noise.
        compensation: sigma of the training's noise, for what is missing of which the gates are softened, at no cost;
            auto: what the checkpoint says of it.
        draws: noisy passes whose posteriors are averaged (voting).
        hop: seconds from one clip of a long recording to the next, each decided on by itself.
        batch_size: clips decided on at once; does not change the result.
        device: cpu, cuda, cuda:1, ... or auto.
    """
    chosen = _format_of(format, output)
    noise = noise_of(hardware, scale, sites, arrays, seed, chip, prefix="--")
    if hardware is None:
        noise = noise.at(sigma)
        check_sites(noise.hardware.sites, [sigma], ("--sites", "--sigma 0"))
    elif sigma:
        raise UserError("--sigma is given beside --hardware: give it in the hardware")
    spotter = load(checkpoint, choose_device(device))
    noise = compensate_noise(noise, compensation, spotter.model, "--compensation")
    if hop is not None and spotter.features is not None:
        check_hop(hop, spotter.features.clip_seconds, "--hop")
    recordings, passed_over = find_recordings(files)
    decided = spotter.predict_files(
        recordings, noise=noise, draws=draws, hop_seconds=hop, batch_size=batch_size
    )
    errors = make_console(stderr=True, highlight=False, soft_wrap=True)
    if (remark := remark_without_effect(noise, [noise.sigma] if noise.compensation else [])) is not None:
        errors.print(_text(remark))
    if passed_over:
        errors.print(_text(f"passed over, for their endings: {first_few(passed_over, _LISTED)}"))
    bad = longer = 0
    assert spotter.features is not None  # predict_files has checked
    clip_seconds = spotter.features.clip_seconds
    rows_are_seen = chosen == "table" and sys.stdout.isatty()
    with _writing(chosen, output, spotter, hop is not None) as write, progress_bar() as progress:
        progress.disable = rows_are_seen
        task = progress.add_task("recordings", total=len(recordings))
        for file in decided:
            write(file)
            if file.error is not None:
                bad += 1
                # Through the bar, which is drawn again below.
                said = _text(f"asr-dni: {printable(file.path)}: {file.error}")
                progress.console.print(said, soft_wrap=True)
            elif hop is None and file.predictions[0].seconds > clip_seconds:
                longer += 1
            progress.advance(task)
    if longer:
        errors.print(
            f"{count(longer, 'recording')} longer than {clip_seconds:g} s, of which the beginning was heard; --hop"
            f" {clip_seconds / 2:g} hears all of it"
        )
    if output is not None:
        errors.print(_text(f"written: {printable(output)}"))
    if bad:
        errors.print(f"{bad} of {count(len(recordings), 'recording')} could not be used")
        sys.exit(1)


def find_recordings(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the recordings that are meant, and the files in folders that were passed over.

    Args:
        paths: files, which are taken as they are, and folders, which are searched with all folders in them for files
            with the ending of a recording, in the order of their names; what is hidden is left alone.

    Raises:
        UserError: a folder cannot be read or has no recording.
    """
    recordings: list[Path] = []
    passed_over: list[Path] = []
    for path in paths:
        if not path.is_dir():
            recordings.append(path)
            continue
        found = [file for file in _below(path) if not file.name.startswith(".")]
        kept = [file for file in found if file.suffix.lower() in AUDIO_SUFFIXES]
        if not kept:
            raise UserError(f"{printable(path)}: no recordings in this folder (files ending in {_ENDINGS})")
        recordings += kept
        passed_over += [file for file in found if file.suffix.lower() not in AUDIO_SUFFIXES]
    return recordings, passed_over


def _below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: this folder cannot be read ({error.strerror or error})") from None

    for path, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(path) / name for name in sorted(names))


def _format_of(given: str | None, output: Path | None) -> str:
    ending = "table" if output is None else output.suffix.lower().removeprefix(".")
    chosen = given or (ending if ending in _FORMATS else "table")
    if output is not None:
        if chosen == "table":
            raise UserError(
                f"output {output}: give --format csv or jsonl, or a file that ends in .csv or .jsonl"
            )
        if output.is_dir():
            raise UserError(f"output {output}: is a folder; give a file")
    return chosen


@contextmanager
def _writing(chosen: str, output: Path | None, spotter: Spotter, hop: bool) -> Iterator[Writer]:
    """Give what writes the rows of a file."""
    if output is None:
        yield _writer(chosen, sys.stdout, spotter.label_names, hop)
        return
    with write_atomically(output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        yield _writer(chosen, stream, spotter.label_names, hop)


def _writer(chosen: str, stream: TextIO, labels: Sequence[str], hop: bool) -> Writer:
    return {"table": _table, "csv": _csv, "jsonl": _jsonl}[chosen](stream, labels, hop)


def _table(stream: TextIO, labels: Sequence[str], hop: bool) -> Writer:
    """Rows of a table that appear as they are decided: the file, whose length is not known, comes last."""
    console = make_console(file=stream, highlight=False, soft_wrap=True)
    width = max(map(len, (*labels, "decision")))
    start = f"{'start':>8}  " if hop else ""
    console.print(
        _text(f"{'decision':{width}}  {'p / %':>6}  {'next':{width}}  {'p / %':>6}  {start}file", "bold")
    )

    def write(file: FilePrediction) -> None:
        name = printable(file.path)
        if file.error is not None:
            blank = f"{'-':{width}}  {'':6}  {'':{width}}  {'':6}  {'':8}  "[: None if hop else -10]
            console.print(_text(f"{blank}{name}: {file.error}", "red"))
        for prediction in file.predictions:
            others = {k: p for k, p in prediction.posteriors.items() if k != prediction.label}
            then = max(others, key=others.__getitem__, default="")
            second = f"{100 * others[then]:6.1f}" if then else f"{'':6}"
            at = f"{prediction.start:8.2f}  " if hop else ""
            line = f"  {100 * prediction.posterior:6.1f}  {then:{width}}  {second}  {at}{name}"
            console.print(_text(f"{prediction.label:{width}}", "bold").append(line, "not bold"))

    return write


def _csv(stream: TextIO, labels: Sequence[str], hop: bool) -> Writer:
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["file", "start", "seconds", "decision", "error", *labels])

    def write(file: FilePrediction) -> None:
        name = printable(file.path)
        if file.error is not None:
            rows.writerow([name, "", "", "", file.error, *([""] * len(labels))])
        for prediction in file.predictions:
            posteriors = [f"{prediction.posteriors[label]:.6f}" for label in labels]
            times = [f"{prediction.start:.6g}", f"{prediction.seconds:.6g}"]
            rows.writerow([name, *times, prediction.label, "", *posteriors])

    return write


def _jsonl(stream: TextIO, labels: Sequence[str], hop: bool) -> Writer:
    def row(file: FilePrediction, **values: object) -> None:
        print(json.dumps({"file": printable(file.path), **values}, ensure_ascii=False), file=stream)

    def write(file: FilePrediction) -> None:
        if file.error is not None:
            row(file, start=None, seconds=None, decision=None, error=file.error, posteriors=None)
        for prediction in file.predictions:
            row(
                file,
                start=round(prediction.start, 6),
                seconds=round(prediction.seconds, 6),
                decision=prediction.label,
                error=None,
                posteriors={label: round(prediction.posteriors[label], 6) for label in labels},
            )

    return write


def _text(text: str, style: str = "") -> Text:
    """Return text for a console that is not markup: names may hold brackets."""
    return Text(text, style)


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni predict``, on recordings or on a checkpoint's own split.

    Raises:
        UserError: there is nothing to decide on, or a setting is not valid.
    """
    if any(word.partition("=")[0] in _OF_A_RUN for word in arguments):
        from asr_dni.cli.lightning import run_lightning

        run_lightning("predict", arguments)
        return
    if not arguments:
        raise UserError(
            "predict needs a checkpoint and recordings: asr-dni predict CHECKPOINT FILES..., or for its own test split"
            " asr-dni predict --ckpt_path CHECKPOINT"
        )
    files = {"type": Path, "nargs": "+", "help": "recordings, or folders that are searched for them"}
    run_function(predict, "predict", arguments, _EPILOG, checkpoint=CHECKPOINT, files=files)
