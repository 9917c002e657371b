"""``asr-dni noise-curve``: accuracy against inference noise, of any checkpoint on any data."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from asr_dni.cli.functions import CHECKPOINT, check_folder, progress_bar, run_function
from asr_dni.named_classes import ALLOW_HELP, ALLOW_OPTION
from asr_dni.noise import MVM_SITES, Arrays, Noise, Scale, Site
from asr_dni.terminal import make_console

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
    from asr_dni.data.overview import tell
    from asr_dni.device import choose_device
    from asr_dni.evaluation import noise_curve_table, save_noise_curve
    from asr_dni.evaluation.curve import curve_label
    from asr_dni.evaluation.sweep import check_draws, check_sigmas, check_sites
    from asr_dni.inference import load

    check_sigmas(sigmas)
    check_draws(draws)
    where = choose_device(device)
    check_folder(output)
    noise = Noise(scale=scale, sites=tuple(sites), arrays=arrays, seed=seed)
    check_sites(noise.hardware.sites, sigmas, ("--sites", "--sigmas 0"))
    spotter = load(checkpoint, where)
    module = spotter.data(data, split, batch_size=batch_size, damaged=damaged)
    tell(module.describe())
    console = make_console()
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
    files = save_noise_curve(curve, output or folder)
    console.print(noise_curve_table({curve_label(curve.settings): curve}))
    if module.left_out:
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
    hardware, default = noise.hardware, Noise().hardware
    if hardware.scale != default.scale:
        parts.append(hardware.scale)
    if hardware.sites != default.sites:
        parts.append("+".join(sorted(hardware.sites)) or "no_sites")
    if hardware.arrays != default.arrays:
        parts.append(hardware.arrays)
    levels = sorted(map(float, sigmas))
    if levels != list(DEFAULT_SIGMAS):
        named = "_".join(str(level).removesuffix(".0") for level in levels)
        if len(named) > 40:
            digest = hashlib.blake2b(named.encode(), digest_size=3).hexdigest()
            named = f"{levels[0]:g}_to_{levels[-1]:g}_{digest}"
        parts.append(f"sigmas_{named}")
    if draws != _DEFAULT_DRAWS:
        parts.append(f"draws_{draws}")
    if noise.realisation.seed:
        parts.append(f"seed_{noise.realisation.seed}")
    if damaged:
        parts.append(f"damaged_{damaged}")
    return FURTHER_CURVES + "-".join(re.sub(r"[^\w.+]+", "_", part) for part in parts)


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni noise-curve``."""
    allow = f"{ALLOW_OPTION} MODULE: {ALLOW_HELP}."
    run_function(noise_curve, "noise-curve", arguments, allow, checkpoint=CHECKPOINT)
