"""Draw every figure of the project into docs/figures/gallery, and write docs/gallery.md, which shows them.

    python scripts/gallery.py --runs RUNS --study STUDY --evaluation FOLDER --checkpoint FILE --data CLIPS

What is not given leaves its figures as they are: the page is written anew in any case. RUNS is a folder of runs, STUDY
of a study, FOLDER what ``asr-dni evaluate`` wrote (others may be given for what the first has not, such as sizes or
votes), FILE a checkpoint that was trained on recordings, and CLIPS its data where they are elsewhere by now.
"""

import argparse
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asr_dni.files import write_atomically
from asr_dni.plotting import Figure

DOCS = Path(__file__).resolve().parent.parent / "docs"
FOLDER = DOCS / "figures" / "gallery"
LARGEST, LARGEST_OF_ALL = 100_000, 1_500_000
"""Bytes of a picture, and of all."""

REPORT = "asr-dni report RUNS -o report.html"
EVALUATE = "asr-dni evaluate CHECKPOINT --hardware noisy_weights"
STUDY = "asr-dni study report STUDY"
DASHBOARD = "asr-dni dashboard RUNS"


@dataclass(frozen=True)
class Shown:
    """A picture of the gallery.

    Attributes:
        name: of its file, without ending.
        function: that specifies it, with its module.
        title: stands above.
        sentence: what it shows.
        command: that draws it.
    """

    name: str
    function: str
    title: str
    sentence: str
    command: str


GALLERY = (
    Shown(
        "noise_curves",
        "asr_dni.evaluation.figures.noise_curves.noise_curves_figure",
        "Noise curves",
        "Accuracy against the strength of the noise, with intervals; the SNR is above where all curves have the same.",
        "asr-dni compare RUNS",
    ),
    Shown(
        "terminal",
        "asr_dni.evaluation.figures.noise_curves.noise_curves_figure",
        "The same in a terminal",
        "Lines in dots, bands as shading, marks that tell curves apart without colour.",
        "asr-dni compare RUNS --plot always",
    ),
    Shown(
        "differences",
        "asr_dni.evaluation.figures.differences.differences_figure",
        "Differences to a baseline",
        "Percentage points above or below one experiment, paired over training seeds where both have the same.",
        f"{REPORT} --baseline LABEL",
    ),
    Shown(
        "snr",
        "asr_dni.evaluation.figures.snr.snr_figure",
        "Noise curves over the SNR",
        "The same curves against the signal-to-noise ratio that each network had: none can escape by larger signals.",
        DASHBOARD,
    ),
    Shown(
        "learning_curves",
        "asr_dni.evaluation.figures.training.learning_curves_figure",
        "Learning curves",
        "Loss and accuracy of training, of validation, and of validation under the noise that was watched.",
        REPORT,
    ),
    Shown(
        "schedules",
        "asr_dni.evaluation.figures.training.schedules_figure",
        "What a training was steered by",
        "The noise that it was under, and its learning rate where that was logged.",
        REPORT,
    ),
    Shown(
        "matrix",
        "asr_dni.study.figures.maps.matrices_figure",
        "The accuracy matrix",
        "Accuracy for every noise in training and at inference, with half the width of its interval over seeds.",
        STUDY,
    ),
    Shown(
        "matrix_difference",
        "asr_dni.study.figures.maps.differences_figure",
        "What training under noise gains",
        "Differences to conventional training at the same noise; bold where a corrected test says so.",
        STUDY,
    ),
    Shown(
        "matrix_curves",
        "asr_dni.study.figures.curves.curves_figure",
        "A study's noise curves",
        "A line for every noise in training, a panel for every size.",
        STUDY,
    ),
    Shown(
        "matrix_row",
        "asr_dni.study.figures.curves.row_figure",
        "One row of the matrix",
        "The curve behind a cell: one noise in training, against conventional training.",
        DASHBOARD,
    ),
    Shown(
        "matrix_best",
        "asr_dni.study.figures.maps.best_figure",
        "The best training noise",
        "For every noise at inference the noise in training that was best, and all that no test rules out.",
        STUDY,
    ),
    Shown(
        "matrix_units",
        "asr_dni.study.figures.curves.units_figure",
        "Accuracy and the number of units",
        "Whether larger networks gain more.",
        STUDY,
    ),
    Shown(
        "transfer",
        "asr_dni.study.figures.transfer.transfer_figure",
        "Training by inference hardware",
        "Every training, on all hardware that it was evaluated on, at one level of each.",
        STUDY,
    ),
    Shown(
        "transfer_difference",
        "asr_dni.study.figures.transfer.transfer_difference_figure",
        "What training on a hardware gains",
        "Differences to conventional training on the same hardware; bold where a corrected test says so.",
        STUDY,
    ),
    Shown(
        "transfer_levels",
        "asr_dni.study.figures.transfer.transfer_levels_figure",
        "Training by inference hardware, at all levels",
        "A panel for every hardware, over its strength.",
        STUDY,
    ),
    Shown(
        "transfer_curves",
        "asr_dni.study.figures.transfer.transfer_curves_figure",
        "Trainings on each hardware",
        "A line for every training, a panel for every hardware.",
        STUDY,
    ),
    Shown(
        "chips",
        "asr_dni.evaluation.figures.outcomes.chips_figure",
        "Chips",
        "Every chip that the same network was programmed on, the worst of them in colour.",
        EVALUATE,
    ),
    Shown(
        "voting",
        "asr_dni.evaluation.figures.outcomes.voting_figure",
        "Votes",
        "What the mean of several noisy inferences gains, and the majority.",
        EVALUATE,
    ),
    Shown(
        "calibration",
        "asr_dni.evaluation.figures.outcomes.calibration_figure",
        "Calibration",
        "Whether the network is as often right as it says, and how far noise and temperature scaling move that.",
        EVALUATE,
    ),
    Shown(
        "classes",
        "asr_dni.evaluation.figures.outcomes.classes_figure",
        "Words",
        "Which words noise breaks first.",
        EVALUATE,
    ),
    Shown(
        "confusion",
        "asr_dni.evaluation.figures.outcomes.confusion_figure",
        "Confusion",
        "What is taken for what, without noise and under the strongest.",
        EVALUATE,
    ),
    Shown(
        "clips",
        "asr_dni.evaluation.figures.outcomes.clips_figure",
        "Clips",
        "At which noise how many clips are no longer understood.",
        EVALUATE,
    ),
    Shown(
        "clip_share",
        "asr_dni.dashboard.run_figures.clip_share_figure",
        "One clip",
        "In which share of the noisy inferences one clip is right.",
        DASHBOARD,
    ),
    Shown(
        "sensitivity",
        "asr_dni.evaluation.figures.sensitivity.sensitivity_figure",
        "Sensitivity",
        "Accuracy with noise at one layer, site or gate at a time.",
        EVALUATE,
    ),
    Shown(
        "budget",
        "asr_dni.evaluation.figures.sensitivity.budget_figure",
        "Noise budget",
        "What each part bears alone, and all together.",
        EVALUATE,
    ),
    Shown(
        "decision",
        "asr_dni.inference.figures.decision_figure",
        "A decision over time",
        "Posteriors after every frame of a clip, the band over several noisy inferences.",
        DASHBOARD,
    ),
    Shown(
        "clip",
        "asr_dni.inference.figures.clip_figure",
        "What the network hears",
        "A clip's waveform and the features that the network gets.",
        DASHBOARD,
    ),
    Shown(
        "device",
        "asr_dni.evaluation.figures.devices.device_figure",
        "A memory device",
        "Deviation of its conductance, and its drift.",
        "asr-dni noise show pcm --figure pcm.png",
    ),
)


def of_runs(folder: Path) -> Iterator[tuple[str, Figure]]:
    """Yield what is drawn of runs."""
    from asr_dni.evaluation.curves.differences import differences, differences_figure
    from asr_dni.evaluation.figures.noise_curves import noise_curves_figure
    from asr_dni.evaluation.figures.snr import snr_figure
    from asr_dni.evaluation.figures.training import learning_curves_figure, schedules_figure
    from asr_dni.report.results import find_results
    from asr_dni.report.runs import pool_runs

    results = find_results([folder])
    pooled = pool_runs(results)[0]
    yield "noise_curves", noise_curves_figure(pooled.summaries)
    yield "differences", differences_figure(differences(pooled.curves, next(iter(pooled.curves))))
    yield "snr", snr_figure(pooled.summaries)
    run = results.runs[list(pooled.runs.values())[-1][0]]
    yield "learning_curves", learning_curves_figure(run.metrics())
    yield "schedules", schedules_figure(run.metrics(), next(iter(run.curves().values())).settings)


def of_study(folder: Path) -> Iterator[tuple[str, Figure]]:
    """Yield what is drawn of a study."""
    from asr_dni.study.figures import row_figure, study_figures
    from asr_dni.study.findings import find_in
    from asr_dni.study.folder import StudyFolder

    findings = find_in(StudyFolder(folder).ledger)
    names = {"matrix": "matrix", "difference": "matrix_difference", "curves": "matrix_curves"}
    names |= {"best": "matrix_best", "units": "matrix_units"}
    names |= {
        name: name for name in ("transfer", "transfer_difference", "transfer_levels", "transfer_curves")
    }
    shown = set()
    for name, figure in study_figures(findings).items():
        kind = names.get(name.partition("-")[0])
        if kind is not None and kind not in shown:
            shown.add(kind)
            yield kind, figure
    if findings.transfers:  # whose matrices have two rows
        return
    matrix = findings.matrices[0]
    yield "matrix_row", row_figure(matrix, matrix.sigma_train[-1])


def of_evaluation(folder: Path) -> Iterator[tuple[str, Figure]]:
    """Yield what is drawn of an evaluation."""
    from asr_dni.dashboard.run_figures import clip_share_figure
    from asr_dni.evaluation.figures.evaluation import evaluation_figures
    from asr_dni.evaluation.questions.folder import read_evaluation

    evaluation = read_evaluation(folder)
    figures = evaluation_figures(evaluation)
    figures.pop("curve", None)
    yield from figures.items()
    clips = evaluation.clips
    if clips is not None:
        shares = clips.pivot_table(index="clip", columns="strength", values="correct_share").to_numpy()
        changing = sorted(clips["clip"].unique())[int((shares[:, 0] - shares[:, -1]).argmax())]
        yield "clip_share", clip_share_figure(clips, int(changing), evaluation.settings_of("clips"))


def of_checkpoint(path: Path, data: Path | None) -> Iterator[tuple[str, Figure]]:
    """Yield what is drawn of one clip on a network."""
    from asr_dni.data.split_clips import SplitClips
    from asr_dni.inference import load
    from asr_dni.inference.figures import clip_figure, decision_figure, features_panel, waveform_panel
    from asr_dni.inference.over_time import decide_over_time
    from asr_dni.noise import Noise

    spotter = load(path, "cpu")
    module = spotter.data(data, "test")
    module.prepare_data()
    module.setup("test")
    clip = SplitClips(module, "test")[0]
    features = spotter.features
    assert features is not None, "the network was not trained on recordings"
    assert clip.samples is not None
    assert clip.sample_rate is not None
    decision = decide_over_time(spotter, clip.features, Noise(2.0), 8, clip.clip_id)
    title = f"A clip of the word {clip.label!r} under σ_infer = 2"
    yield "decision", decision_figure(decision, features.clip_seconds, title)
    panels = [waveform_panel(clip.samples, clip.sample_rate)]
    panels.append(
        features_panel(clip.features, features.clip_seconds, features.front_end, features.normalize)
    )
    yield "clip", clip_figure(panels, f"A clip of the word {clip.label!r}")


def of_project() -> Iterator[tuple[str, Figure]]:
    """Yield what is drawn of the project alone."""
    from asr_dni.evaluation.figures.devices import device_figure
    from asr_dni.hardware_files import read_hardware
    from asr_dni.noise.devices import Cells

    device = next(model for model in read_hardware("pcm").weight if isinstance(model, Cells))
    yield "device", device_figure(device, "pcm")


def save(name: str, figure: Figure) -> None:
    """Write a picture as SVG, or as PNG where that is smaller and the SVG is too large."""
    from asr_dni.plotting.with_matplotlib import render
    from asr_dni.plotting.with_matplotlib import save as save_drawing

    for ending in ("svg", "png"):
        (FOLDER / f"{name}.{ending}").unlink(missing_ok=True)
    drawing = render(figure)
    (path,) = save_drawing(drawing, FOLDER / name, ("svg",))
    dpi = 100.0
    while path.stat().st_size > LARGEST and dpi > 40:
        path.unlink()
        drawing.set_dpi(dpi)
        (path,) = save_drawing(drawing, FOLDER / name, ("png",))
        dpi *= 0.8
    print(f"{path.relative_to(DOCS)} ({path.stat().st_size / 1000:.0f} kB)")


def save_terminal(figure: Figure) -> None:
    """Write a picture of a figure in a terminal; in the fonts that are there, which are asked for nowhere."""
    from rich.console import Console

    from asr_dni.plotting.in_terminal import render

    console = Console(
        file=io.StringIO(), width=96, record=True, force_terminal=True, color_system="truecolor"
    )
    console.print(render(figure, 96))
    text = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="asr-dni compare"), flags=re.DOTALL)
    with write_atomically(FOLDER / "terminal.svg") as temporary:
        temporary.write_text(text, encoding="utf-8")


def page() -> str:
    """Return the page, of the pictures that there are."""
    lines = [
        "# Gallery",
        "",
        "Every figure of the project, with the command that draws it. One specification each is drawn by matplotlib for"
        " files, by plotly for pages, dashboard and W&B, and as text in a terminal. Colours are told apart by readers"
        " with any colour vision, and by markers without colour; the small print says what was measured and what an"
        " interval covers.",
        "",
        "Made by `make gallery` from results of one's own: see `scripts/gallery.py`. These are of eight real words"
        " and, where it says so, of handwritten digits.",
    ]
    for shown in GALLERY:
        file = next(
            (f"{shown.name}.{one}" for one in ("svg", "png") if (FOLDER / f"{shown.name}.{one}").exists()),
            None,
        )
        if file is None:
            raise SystemExit(f"there is no picture {shown.name}: give its input, see --help")
        lines += ["", f"## {shown.title}", "", shown.sentence, "", f"    {shown.command}", ""]
        lines += [f"![{shown.title}](figures/gallery/{file})", "", f"`{shown.function}`"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw what there is input for, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name in ("runs", "checkpoint", "data"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("study", "evaluation"):
        parser.add_argument(f"--{name}", type=Path, action="append", default=[])
    given = parser.parse_args()
    sources = [of_project()]
    sources += [of_runs(given.runs)] if given.runs else []
    sources += map(of_study, given.study)
    sources += map(of_evaluation, given.evaluation)
    sources += [of_checkpoint(given.checkpoint, given.data)] if given.checkpoint else []
    done = set()
    for source in sources:
        for name, figure in source:
            if name in done:  # the first that is given counts
                continue
            done.add(name)
            save(name, figure)
            if name == "noise_curves":
                save_terminal(figure)
    with write_atomically(DOCS / "gallery.md") as temporary:
        temporary.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
