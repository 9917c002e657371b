"""The commands that are not Lightning's own; each parses its settings from a function's signature and docstring."""

import hashlib
import re
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr_dni.cli.lists import with_brackets
from asr_dni.configuration import explain
from asr_dni.errors import UserError
from asr_dni.named_classes import ALLOW_HELP, ALLOW_OPTION
from asr_dni.noise import MVM_SITES, Arrays, Noise, Scale, Site

DEFAULT_SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
_DEFAULT_DRAWS = 10


def noise_curve(
    checkpoint: Path,
    data: Path | None = None,
    split: Literal["train", "validation", "test", "all"] = "test",
    sigmas: list[float] = list(DEFAULT_SIGMAS),  # noqa: B006  shown as the default on the command line
    draws: int = _DEFAULT_DRAWS,
    scale: Scale = "absolute",
    sites: list[Site] = list(MVM_SITES),  # noqa: B006
    arrays: Arrays = "joint",
    seed: int = 0,
    batch_size: int = 256,
    device: str = "auto",
    output: Path | None = None,
    damaged: Literal["error", "skip"] | None = None,
) -> None:
    """Measure a trained network's accuracy against inference noise.

    Args:
        checkpoint: a .ckpt file that asr-dni fit wrote.
        data: a folder of clips (word/speaker_nohash_k.wav) to evaluate on; without it the checkpoint's own data.
        split: which of the clips.
        sigmas: noise levels.
        draws: realisations of the noise per level.
        scale: what sigma is measured in.
        sites: where the noise enters.
        arrays: whether W_ih and W_hh share one array, and one noise per pre-activation (joint), or have one each.
        seed: of the noise.
        batch_size: clips evaluated at once; does not change the result.
        device: cpu, cuda, cuda:1, ... or auto.
        output: folder for noise_curve.csv, .png and .svg; by default noise_curve-<checkpoint>-<data or own>-<split>,
            and what differs from the defaults, beside the checkpoint.
        damaged: whether a recording that cannot be decoded is an error, or is left out (skip); by default as in
            training.
    """
    from asr_dni.data import KeywordData
    from asr_dni.data.overview import tell
    from asr_dni.device import choose_device
    from asr_dni.evaluation import noise_curve_table
    from asr_dni.evaluation.noise_curve import check_draws, check_sigmas, check_sites, curve_label
    from asr_dni.inference import load

    check_sigmas(sigmas)
    check_draws(draws)
    where = choose_device(device)
    _check_folder(output)
    noise = Noise(scale=scale, sites=tuple(sites), arrays=arrays, seed=seed)
    check_sites(noise.sites, sigmas)
    spotter = load(checkpoint, where)
    module = spotter.data(data, split, batch_size=batch_size, damaged=damaged)
    tell(module.describe())
    console = Console()
    with progress_bar() as progress:
        task = progress.add_task("noise curve", total=None)
        curve = spotter.noise_curve(
            module,
            sigmas,
            draws,
            split=split,
            noise=noise,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    folder = checkpoint.resolve().parent / _folder_name(
        checkpoint, data, split, sigmas, draws, noise, damaged
    )
    files = curve.save(output or folder)
    console.print(noise_curve_table({curve_label(curve.settings): curve}))
    if isinstance(module, KeywordData) and module.left_out:
        listed = ", ".join(f"{word} ({count})" for word, count in module.left_out.items())
        console.print(f"left out, words that the network does not know: {listed}")
    console.print("written: " + ", ".join(map(str, files)), soft_wrap=True)


def _folder_name(
    checkpoint: Path,
    data: Path | None,
    split: str,
    sigmas: Sequence[float],
    draws: int,
    noise: Noise,
    damaged: str | None,
) -> str:
    """Return a name for what was measured: other settings, other folder, so that nothing is overwritten by them."""
    from asr_dni.evaluation.compare import FURTHER_CURVES

    parts = [checkpoint.stem, data.resolve().name if data else "own", split]
    default = Noise()
    if noise.scale != default.scale:
        parts.append(noise.scale)
    if set(noise.sites) != set(default.sites):
        parts.append("+".join(sorted(noise.sites)) or "no_sites")
    if noise.arrays != default.arrays:
        parts.append(noise.arrays)
    levels = sorted(map(float, sigmas))
    if levels != list(DEFAULT_SIGMAS):
        named = "_".join(str(level).removesuffix(".0") for level in levels)
        if len(named) > 40:
            digest = hashlib.blake2b(named.encode(), digest_size=3).hexdigest()
            named = f"{levels[0]:g}_to_{levels[-1]:g}_{digest}"
        parts.append(f"sigmas_{named}")
    if draws != _DEFAULT_DRAWS:
        parts.append(f"draws_{draws}")
    if noise.seed != default.seed:
        parts.append(f"seed_{noise.seed}")
    if damaged:
        parts.append(f"damaged_{damaged}")
    return FURTHER_CURVES + "-".join(re.sub(r"[^\w.+]+", "_", part) for part in parts)


def progress_bar() -> Progress:
    """Return a bar on standard error that says how much is done, and when the rest will be."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _check_folder(path: Path | None) -> None:
    """Say before the work that its results could not be written."""
    if path is not None and any(part.exists() and not part.is_dir() for part in (path, *path.parents)):
        raise UserError(f"output {path}: a file is in the way; give a folder")


def compare(
    runs: list[Path], output: Path = Path("runs/comparison"), title: str = "Accuracy under computation noise"
) -> None:
    """Overlay noise curves; runs that differ only in their seed are pooled, with intervals over seeds.

    Args:
        runs: folders that are searched for noise_curve.csv, or such files; what noise-curve wrote is compared where
            its folder is named itself.
        output: folder for noise_curves.png, .svg, .csv and .md.
        title: stands above figure and table.
    """
    from asr_dni.evaluation import compare_curves

    _check_folder(output)
    comparison = compare_curves(runs, output, title=title)
    console = Console()
    console.print(comparison.table)
    for path in comparison.left_out:
        console.print(f"left out {path}: the same weights were evaluated again later", soft_wrap=True)
    console.print("written: " + ", ".join(map(str, comparison.files)), soft_wrap=True)


def _run(
    function: Callable[..., None],
    prog: str,
    arguments: Sequence[str],
    epilog: str | None = None,
    **positional: dict[str, Any],
) -> None:
    """Call a function with its arguments from the command line; ``positional`` names those without a ``--``."""
    description = (function.__doc__ or "").split("\n\n")[0]
    parser = ArgumentParser(
        prog=f"asr-dni {prog}",
        description=description,
        epilog=epilog,
        exit_on_error=False,
        allow_abbrev=False,
    )
    for name, options in positional.items():
        parser.add_argument(name, **options)
    parser.add_function_arguments(function, skip=set(positional), as_group=False)
    try:
        parsed = parser.parse_args(with_brackets(arguments, parser))
    except ArgumentError as error:
        raise UserError(f"{explain(error)} (asr-dni {prog} --help lists the settings)") from error
    function(**parser.instantiate_classes(parsed).as_dict())


def _noise_curve(arguments: Sequence[str]) -> None:
    checkpoint = {"type": Path, "help": "a .ckpt file that asr-dni fit wrote"}
    allow = f"{ALLOW_OPTION} MODULE: {ALLOW_HELP}."
    _run(noise_curve, "noise-curve", arguments, allow, checkpoint=checkpoint)


def _compare(arguments: Sequence[str]) -> None:
    runs = {
        "type": Path,
        "nargs": "+",
        "help": "folders that are searched for noise_curve.csv, or such files",
    }
    _run(compare, "compare", arguments, runs=runs)


def _predict(arguments: Sequence[str]) -> None:
    from asr_dni.cli.predict import EPILOG, predict

    if not arguments:
        raise UserError(
            "predict needs a checkpoint and recordings: asr-dni predict CHECKPOINT FILES..., or for its own test split"
            " asr-dni predict --ckpt_path CHECKPOINT"
        )
    files = {
        "type": Path,
        "nargs": "+",
        "help": "recordings, or folders that are searched for them",
    }
    checkpoint = {"type": Path, "help": "a .ckpt file that asr-dni fit wrote"}
    _run(predict, "predict", arguments, EPILOG, checkpoint=checkpoint, files=files)


def _info(arguments: Sequence[str]) -> None:
    from asr_dni.cli.info import info

    _run(info, "info", arguments)


def _demo(arguments: Sequence[str]) -> None:
    from asr_dni.cli.demo import demo

    _run(demo, "demo", arguments)


def _study(arguments: Sequence[str]) -> None:
    from asr_dni.cli.study import study

    study(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "noise-curve": _noise_curve,
    "compare": _compare,
    "predict": _predict,
    "info": _info,
    "demo": _demo,
    "study": _study,
}
