"""``asr-dni noise-curve``: accuracy against inference noise, of any checkpoint on any data."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asr_dni.cli.functions import CHECKPOINT, check_folder, folder_beside, progress_bar, run_function
from asr_dni.cli.plots import Plot, print_figures
from asr_dni.errors import UserError
from asr_dni.models import find_checkpoint, packaged_name
from asr_dni.named_classes import ALLOW_HELP, ALLOW_OPTION
from asr_dni.noise import MVM_SITES, SIGMA, Arrays, Noise, Scale, Site, Strength
from asr_dni.terminal import make_console

if TYPE_CHECKING:
    from asr_dni.evaluation.measurement.sweep import Sweep

DEFAULT_SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
_DEFAULT_DRAWS = 10


def noise_curve(
    checkpoint: Path,
    data: Path | None = None,
    split: Literal["train", "validation", "test", "all"] = "test",
    sigmas: list[float] = list(DEFAULT_SIGMAS),  # noqa: B006  shown as the default on the command line
    draws: int = _DEFAULT_DRAWS,
    hardware: str | None = None,
    strength: str | None = None,
    strengths: list[float] | None = None,
    chips: int = 1,
    scale: Scale = "absolute",
    sites: list[Site] = list(MVM_SITES),  # noqa: B006
    arrays: Arrays = "joint",
    seed: int = 0,
    compensation: Literal["auto"] | float | None = None,
    batch_size: int = 256,
    device: str = "auto",
    output: Path | None = None,
    damaged: Literal["error", "skip"] | None = None,
    plot: Plot = "auto",
    wandb: Literal["disabled", "auto", "online", "offline"] = "disabled",
    wandb_project: str | None = None,
) -> None:
    """Measure a trained network's accuracy against inference noise, or any other strength of a hardware.

    Args:
        checkpoint: a .ckpt file that asr-dni fit wrote.
        data: a folder of clips (word/speaker_nohash_k.wav) to evaluate on; without it the checkpoint's own data.
        split: which of the clips.
        sigmas: levels of the additive Gaussian noise; of the output noise of another hardware.
        draws: realisations of the noise per level and chip.
        hardware: a name, such as noisy_weights, or a YAML file; scale, sites and arrays are then its own.
        strength: which of the hardware's numbers is the axis, such as adc.bits or weight.sigma; by default the sigma of
            its outputs, or what asr-dni evaluate takes.
        strengths: its levels, such as 4,5,6,8.
        chips: how many chips each level is measured on, where weights differ from chip to chip.
        scale: what sigma is measured in.
        sites: where the noise enters.
        arrays: whether W_ih and W_hh share one array, and one noise per pre-activation (joint), or have one each.
        seed: of the noise.
        compensation: sigma of the training's noise, for what is missing of which the gates are softened, at no cost;
            auto: what the checkpoint says of it.
        batch_size: clips evaluated at once; does not change the result.
        device: cpu, cuda, cuda:1, ... or auto.
        output: folder for noise_curve.csv, .png and .svg; by default noise_curve-<checkpoint>-<data or own>-<split>,
            and what differs from the defaults, beside the checkpoint.
        damaged: whether a recording that cannot be decoded is an error, or is left out (skip); by default as in
            training.
        plot: whether the figure is drawn in the terminal as well; auto where the output is one.
        wandb: log the curve to W&B, as a run that names the checkpoint it used.
        wandb_project: project in W&B; by default that of WANDB_PROJECT, else asr-dni.
    """
    from asr_dni.data.overview import tell
    from asr_dni.device import choose_device
    from asr_dni.evaluation import noise_curve_table, save_noise_curve
    from asr_dni.evaluation.curves.axes import usual_levels, usual_strength
    from asr_dni.evaluation.curves.curve import curve_label
    from asr_dni.evaluation.figures.noise_curves import noise_curves_figure
    from asr_dni.evaluation.measurement.sweep import Sweep, check_sites
    from asr_dni.hardware_files import noise_of
    from asr_dni.inference import load
    from asr_dni.inference.compensation import compensate_noise, remark_without_effect

    mode = None if wandb == "auto" else wandb
    if wandb != "disabled":
        from asr_dni.evaluation import check_wandb

        check_wandb(wandb_project, mode)
    noise = noise_of(hardware, scale, sites, arrays, seed, prefix="--")
    usual = strength is None and not noise.hardware.has(SIGMA)
    axis = usual_strength(noise.hardware) if usual else Strength.parse(strength or SIGMA.path)
    if usual and strengths is None:
        strengths = list(usual_levels(noise.hardware, axis))
    levels = _levels(axis, sigmas, strengths, hardware)
    where = choose_device(device)
    check_folder(output)
    check_sites(noise.hardware.sites, levels, ("--sites", "--sigmas 0"))
    Sweep(levels, draws, noise, axis, chips)  # mistakes are found before anything is read
    spotter = load(checkpoint, where)
    noise = compensate_noise(noise, compensation, spotter.model, "--compensation")
    sweep = Sweep(levels, draws, noise, axis, chips)
    module = spotter.data(data, split, batch_size=batch_size, damaged=damaged)
    tell(module.describe())
    console = make_console()
    with progress_bar() as progress:
        task = progress.add_task("noise curve", total=None)
        curve = spotter.noise_curve(
            module,
            levels,
            draws,
            split=split,
            noise=noise,
            strength=axis,
            chips=chips,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    named = None if hardware is None else Path(hardware).stem
    folder = folder_beside(checkpoint) / _folder_name(checkpoint, data, split, sweep, damaged, named)
    files = save_noise_curve(curve, output or folder)
    if plot != "never":
        print_figures(console, [noise_curves_figure({curve_label(curve.settings): curve})], plot)
    console.print(noise_curve_table({curve_label(curve.settings): curve}))
    if module.left_out:
        listed = ", ".join(f"{word} ({count})" for word, count in module.left_out.items())
        console.print(f"left out, words that the network does not know: {listed}")
    if (remark := remark_without_effect(noise, levels)) is not None:
        console.print(remark, soft_wrap=True)
    console.print("written: " + ", ".join(map(str, files)), soft_wrap=True)
    if wandb != "disabled":
        from asr_dni.cli.run_loggers import describe_wandb
        from asr_dni.evaluation.loggers.wandb_evaluation import log_evaluation

        run = log_evaluation(
            curve, curve.settings, split, find_checkpoint(checkpoint), output or folder, wandb_project, mode
        )
        print(describe_wandb(run))


def _levels(
    axis: Strength, sigmas: Sequence[float], strengths: Sequence[float] | None, hardware: str | None
) -> tuple[float, ...]:
    """Return the levels that are meant.

    Raises:
        UserError: there are none for this strength, or two lists of them, or no hardware that has it.
    """
    from asr_dni.evaluation.measurement.sweep import choose_levels

    if strengths is not None and list(sigmas) != list(DEFAULT_SIGMAS):
        raise UserError("--sigmas and --strengths are both given: give one of them")
    if hardware is None and not axis.is_sigma:
        raise UserError(
            f"--strength is {axis.path}, which additive Gaussian noise has not: give --hardware, such as"
            " noisy_weights, or a YAML file"
        )
    return choose_levels(axis, sigmas, strengths, ("--strength", "--strengths"))


def _folder_name(
    checkpoint: Path,
    data: Path | None,
    split: str,
    sweep: "Sweep",
    damaged: str | None,
    hardware_name: str | None = None,
) -> str:
    """Return a name for what was measured: other settings, other folder, so that nothing is overwritten by them."""
    from asr_dni.catalogue.finding import FURTHER_CURVES

    parts = [] if packaged_name(checkpoint) is not None else [checkpoint.stem]
    parts += [data.resolve().name if data else "own", split]
    hardware, default = sweep.noise.hardware, Noise().hardware
    if hardware_name is not None:
        parts.append(f"{hardware_name}_{hardware.identity}")
    else:
        if hardware.scale != default.scale:
            parts.append(hardware.scale)
        if hardware.sites != default.sites:
            parts.append("+".join(sorted(hardware.sites)) or "no_sites")
        if hardware.arrays != default.arrays:
            parts.append(hardware.arrays)
    levels, is_sigma = list(sweep.values), sweep.strength.is_sigma
    if not is_sigma or levels != list(DEFAULT_SIGMAS):
        named = "_".join(str(level).removesuffix(".0") for level in levels)
        if len(named) > 40:
            digest = hashlib.blake2b(named.encode(), digest_size=3).hexdigest()
            named = f"{levels[0]:g}_to_{levels[-1]:g}_{digest}"
        parts.append(f"{'sigmas' if is_sigma else sweep.strength.name}_{named}")
    if sweep.chips > 1:
        parts.append(f"chips_{sweep.chips}")
    if sweep.draws != _DEFAULT_DRAWS:
        parts.append(f"draws_{sweep.draws}")
    if sweep.noise.realisation.seed:
        parts.append(f"seed_{sweep.noise.realisation.seed}")
    if damaged:
        parts.append(f"damaged_{damaged}")
    if sweep.noise.compensation is not None:
        parts.append(name_of_compensation(sweep.noise))
    return FURTHER_CURVES + "-".join(re.sub(r"[^\w.+]+", "_", part) for part in parts)


def name_of_compensation(noise: Noise) -> str:
    """Return what a folder's name says of the compensation that a noise has."""
    trained = noise.compensation
    assert trained is not None
    alike = noise.hardware.has(SIGMA) and noise.at(trained.value()).hardware == trained
    return f"compensation_{trained.value():g}" + ("" if alike else f"_{trained.identity}")


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni noise-curve``."""
    allow = f"{ALLOW_OPTION} MODULE: {ALLOW_HELP}."
    run_function(noise_curve, "noise-curve", arguments, allow, checkpoint=CHECKPOINT)
