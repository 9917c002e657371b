"""``asr-dni evaluate``: any checkpoint under any hardware: curves, classes, calibration, votes, clips."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from asr_dni.cli.functions import CHECKPOINT, check_folder, folder_beside, progress_bar, run_function
from asr_dni.cli.noise_curve import name_of_compensation
from asr_dni.errors import UserError
from asr_dni.evaluation.questions.evaluate import PARTS, SUBJECTS, Request, Subject, evaluate_network
from asr_dni.models import find_checkpoint, packaged_name
from asr_dni.named_classes import ALLOW_HELP, ALLOW_OPTION
from asr_dni.noise import MVM_SITES, Arrays, Noise, Scale, Site, Strength
from asr_dni.terminal import make_console

if TYPE_CHECKING:
    from asr_dni.evaluation.measurement.sweep import Sweep
    from asr_dni.inference.compensation import Compensated
    from asr_dni.model import KeywordSpotter

_CHIPS = 10


def evaluate(
    checkpoint: Path,
    hardware: list[str] | None = None,
    strength: str | None = None,
    strengths: list[float] | None = None,
    only: list[Subject] | None = None,
    data: Path | None = None,
    split: Literal["train", "validation", "test", "all"] = "test",
    draws: int = 10,
    chips: int | None = None,
    votes: list[int] | None = None,
    points: float = 1.0,
    scale: Scale = "absolute",
    sites: list[Site] = list(MVM_SITES),  # noqa: B006  shown as the default on the command line
    arrays: Arrays = "joint",
    seed: int = 0,
    compensation: Literal["auto"] | float | None = None,
    batch_size: int = 256,
    device: str = "auto",
    energy: Path | None = None,
    figures: bool = True,
    output: Path | None = None,
    damaged: Literal["error", "skip"] | None = None,
    wandb: Literal["disabled", "auto", "online", "offline"] = "disabled",
    wandb_project: str | None = None,
) -> None:
    """Evaluate a trained network under any hardware: curves, classes, calibration, votes and clips, as tables.

    Args:
        checkpoint: a .ckpt file that asr-dni fit wrote.
        hardware: names, such as pcm,noisy_weights, or YAML files, one after the other; without it additive Gaussian
            noise on outputs.
        strength: which of the hardware's numbers is the axis, such as adc.bits; by default the time since programming
            of devices that age, else the sigma of the noise, or the bits of a converter.
        strengths: its levels, such as 4,5,6,8; by default usual ones, such as 1 s to 1 year.
        only: which tables; all by default.
        data: a folder of clips (word/speaker_nohash_k.wav) to evaluate on; without it the checkpoint's own data.
        split: which of the clips.
        draws: realisations of the noise per level and chip.
        chips: how many chips each level is measured on; by default 10 where weights differ from chip to chip.
        votes: numbers of noisy inferences that vote, at most as many as draws.
        points: percentage points below clean accuracy that are tolerated, in the summary.
        scale: what sigma is measured in.
        sites: where the noise enters.
        arrays: whether W_ih and W_hh share one array, and one noise per pre-activation (joint), or have one each.
        seed: of the noise.
        compensation: sigma of the training's noise, for what is missing of which the gates are softened, at no cost;
            auto: what the checkpoint says of it.
        batch_size: clips evaluated at once; does not change the result.
        device: cpu, cuda, cuda:1, ... or auto.
        energy: a YAML file with joules and source of the operations dac, adc, cell and digital, for an estimate of an
            inference's energy.
        figures: whether to draw the tables, as PNG and SVG.
        output: folder, in which each hardware has one, evaluation or evaluation-<hardware>; by default the run's own.
        damaged: whether a recording that cannot be decoded is an error, or is left out (skip); by default as in
            training.
        wandb: log curve and tables to W&B, as a run for each hardware that names the checkpoint it used.
        wandb_project: project in W&B; by default that of WANDB_PROJECT, else asr-dni.
    """
    from asr_dni.data.overview import tell
    from asr_dni.device import choose_device
    from asr_dni.evaluation.figures.evaluation import evaluation_figures
    from asr_dni.evaluation.figures.noise_curves import save_figure
    from asr_dni.evaluation.measurement.outcomes import EvaluationSet, OutcomeStore
    from asr_dni.evaluation.questions.cost_of_inference import read_energy
    from asr_dni.evaluation.questions.folder import read_evaluation
    from asr_dni.evaluation.questions.tables import print_result
    from asr_dni.inference import load
    from asr_dni.inference.compensation import remark_without_effect
    from asr_dni.nn import learned_bounds

    mode = None if wandb == "auto" else wandb
    if wandb != "disabled":
        from asr_dni.evaluation import check_wandb

        check_wandb(wandb_project, mode)
    where = choose_device(device)
    check_folder(output)
    if not 0 < points < 100:
        raise UserError(f"--points is {points:g}: give percentage points above 0, such as 1")
    asked = [
        _Asked.of(
            given,
            strength,
            strengths,
            draws,
            chips,
            Noise(scale=scale, sites=tuple(sites), arrays=arrays, seed=seed),
        )
        for given in (hardware or (None,))
    ]
    constants = None if energy is None else read_energy(energy)

    def request_of(its: _Asked) -> Request:
        return Request(its.sweep, tuple(only or SUBJECTS), votes, points / 100, energy=constants)

    requests = [request_of(its) for its in asked]  # mistakes are found before anything is read
    spotter = load(checkpoint, where)
    if compensation is not None:
        asked = [its.compensating(compensation, spotter.model) for its in asked]
        requests = [request_of(its) for its in asked]
    module = spotter.data(data, split, batch_size=batch_size, damaged=damaged)
    tell(module.describe())
    clips = EvaluationSet(module.batches("test" if split == "all" else split, where))
    paths = module.clip_names(clips.clip_ids)
    noted = spotter.settings_on(module, split)
    bounds = {f"{its.layer}.{its.name}".lstrip("."): its.factor for its in learned_bounds(spotter.network)}
    if isinstance(place := getattr(getattr(module, "source", None), "path", None), Path):
        noted["data_folder"] = str(place.resolve())
    console = make_console()
    run = folder_beside(checkpoint)
    run = run.parent if run.name == "checkpoints" else run
    with progress_bar() as progress:
        for its, request in zip(asked, requests, strict=True):
            folder = (output or run) / _folder_name(checkpoint, data, split, its)
            store = OutcomeStore(spotter.network, clips, folder / PARTS)
            task = progress.add_task(its.name or "gaussian", total=request.passes(store) * len(clips.batches))
            result = evaluate_network(
                store,
                request,
                folder,
                {**noted, "hardware_name": its.name or "gaussian", **its.bounds_of(bounds)},
                spotter.label_names,
                paths,
                partial(progress.advance, task),
            )
            files = [*result.files]
            if figures:
                drawn = evaluation_figures(read_evaluation(folder))
                wanted = {name: drawn[name] for name in drawn if name in result.figures}
                files += [
                    path for name, figure in wanted.items() for path in save_figure(figure, folder / name)
                ]
            print_result(console, result)
            remark = remark_without_effect(its.sweep.noise, its.sweep.values)
            if remark is not None:
                console.print(remark, soft_wrap=True)
            console.print(f"written: {folder}: " + ", ".join(path.name for path in files), soft_wrap=True)
            if wandb != "disabled":
                from asr_dni.cli.run_loggers import describe_wandb
                from asr_dni.evaluation.loggers.wandb_evaluation import log_evaluation

                tables = {name: frame for name, frame in result.tables.items() if name != "curve"}
                logged = log_evaluation(
                    result.curve,
                    result.settings,
                    split,
                    find_checkpoint(checkpoint),
                    folder,
                    wandb_project,
                    mode,
                    tables,
                )
                console.print(describe_wandb(logged), soft_wrap=True, highlight=False)


class _Asked(NamedTuple):
    """One hardware of the command line.

    Attributes:
        name: of the hardware; "" for the Gaussian noise of the short form.
        sweep: of it.
        usual: whether the strength is the usual one.
    """

    name: str
    sweep: "Sweep"
    usual: bool

    def bounds_of(self, learned: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Return a network's learned bounds as far as this hardware takes them, by the name of the setting."""
        from asr_dni.nn.learned_bounds import CONVERTERS

        hardware = self.sweep.noise.hardware
        takes = [name for name in CONVERTERS if getattr(getattr(hardware, name), "learned", False)]
        own = {name: value for name, value in learned.items() if name.split(".")[-1].startswith(tuple(takes))}
        return {"learned_bounds": own} if own else {}

    @classmethod
    def of(
        cls,
        given: str | None,
        strength: str | None,
        strengths: Sequence[float] | None,
        draws: int,
        chips: int | None,
        noise: Noise,
    ) -> "_Asked":
        """Return what is asked of one hardware.

        Raises:
            UserError: there is no such hardware, or not such a strength, or a value that it can't have.
        """
        from asr_dni.evaluation.curves.axes import usual_levels, usual_strength
        from asr_dni.evaluation.measurement.sweep import Sweep
        from asr_dni.hardware_files import noise_of

        own = noise.hardware
        noise = noise_of(given, own.scale, own.sites, own.arrays, noise.realisation.seed, prefix="--")
        axis = usual_strength(noise.hardware) if strength is None else Strength.parse(strength)
        levels = usual_levels(noise.hardware, axis) if strengths is None else strengths
        name = "" if given is None else Path(given).stem
        usual = axis.path == usual_strength(noise.hardware).path
        if chips is None:
            varies = any(noise.at(level, axis).hardware.has_chips for level in levels)
            chips = _CHIPS if varies else 1
        return cls(name, Sweep(levels, draws, noise, axis, chips), usual)

    def compensating(self, given: "Compensated", model: "KeywordSpotter") -> "_Asked":
        """Return the same for a network with compensation, see ``compensate_noise``."""
        from asr_dni.inference.compensation import compensate_noise

        sweep = self.sweep
        noise = compensate_noise(sweep.noise, given, model, "--compensation")
        return self._replace(sweep=type(sweep)(sweep.values, sweep.draws, noise, sweep.strength, sweep.chips))


def _folder_name(checkpoint: Path, data: Path | None, split: str, asked: _Asked) -> str:
    """Return a name for what was measured: other hardware, strength, checkpoint or data have another folder."""
    from asr_dni.evaluation.questions.folder import FOLDER

    hardware, default = asked.sweep.noise.hardware, Noise().hardware
    parts = [asked.name] if asked.name else []
    if not asked.usual:
        parts.append(asked.sweep.strength.name)
    if not asked.name:
        parts += [hardware.scale] * (hardware.scale != default.scale)
        parts += ["+".join(hardware.sites) or "no_sites"] * (hardware.sites != default.sites)
        parts += [hardware.arrays] * (hardware.arrays != default.arrays)
    if asked.sweep.noise.compensation is not None:
        parts.append(name_of_compensation(asked.sweep.noise))
    parts += [checkpoint.stem] * (checkpoint.stem != "last" and packaged_name(checkpoint) is None)
    parts += [data.resolve().name] if data else []
    parts += [split] * (split != "test")
    return "-".join([FOLDER, *(re.sub(r"[^\w.+]+", "_", part) for part in parts)])


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni evaluate``."""
    allow = f"{ALLOW_OPTION} MODULE: {ALLOW_HELP}."
    run_function(evaluate, "evaluate", arguments, allow, checkpoint=CHECKPOINT)
