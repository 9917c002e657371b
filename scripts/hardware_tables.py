"""Fill the tables of docs/designers.md, and draw its figures, from the runs of scripts/eight_words_hardware.sh.

    python scripts/hardware_tables.py runs/hardware --document docs/designers.md --figures docs/figures

A table stands between two comments, <!-- NAME --> and <!-- /NAME -->, with NAME that of an evaluation, or "clean".
"""

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from marked_places import fill

from asr_dni.evaluation import CurveSummary, NoiseCurve, save_figure, summarise_curves
from asr_dni.evaluation.curves.axes import TIMES
from asr_dni.evaluation.curves.tables import format_accuracy
from asr_dni.evaluation.figures.noise_curves import noise_curves_figure
from asr_dni.evaluation.questions.folder import FOLDER, read_evaluation
from asr_dni.plotting import Figure, Line
from asr_dni.wording import count

TRAININGS = {
    "conventional": "conventional",
    "gaussian": "Gaussian, σ_train=2",
    "pcm": "PCM, 8 bits",
    "pcm_drawn": "PCM, 8 bits, strength drawn",
    "pcm_hwa": "pcm_hwa",
    "reram": "ReRAM",
}
"""Folders of trainings below that of the runs, and what each is called."""

EVALUATIONS = {
    "pcm": "Phase-change memory, no converters, no drift compensation",
    "pcm_compensated": "Phase-change memory, no converters, drift compensated",
    "pcm_8bit": "Phase-change memory, 8-bit converters, drift compensated",
    "hermes": "Phase-change memory (HERMES), drift compensated",
    "reram_wan2022": "Resistive memory (Wan 2022)",
    "stuck_cells": "Devices that are stuck at 0",
    "noisy_weights-adc_bits": "ADC bits (weights 3 % off, 8-bit DAC)",
    "noisy_weights-dac_bits": "DAC bits (weights 3 % off, 8-bit ADC)",
    "standard_hwa": "The whole array (standard_hwa)",
}
"""Evaluations by what stands behind ``evaluation-`` in their folders' names, and their titles."""

DRAWN = ("pcm", "pcm_8bit", "reram_wan2022", "noisy_weights-adc_bits")
_TIME_NAMES = {seconds: name for name, seconds in TIMES.items()} | {172800.0: "2 days"}


def runs_of(folder: Path, training: str) -> list[Path]:
    """Return the runs of a training, one for each seed."""
    return sorted(folder.glob(f"{training}/seed_*/version_0"))


def curves_of(folder: Path, evaluation: str) -> Iterator[tuple[str, list[NoiseCurve]]]:
    """Yield the curves of each training's seeds in one evaluation, where there are any."""
    for training, label in TRAININGS.items():
        found = [
            read_evaluation(run / f"{FOLDER}-{evaluation}").curve
            for run in runs_of(folder, training)
            if (run / f"{FOLDER}-{evaluation}" / "curve.parquet").is_file()
        ]
        if curves := [curve for curve in found if curve is not None]:
            yield label, curves


def level_name(strength: str, level: float) -> str:
    """Return a level as a heading has it: times by their name, shares in percent."""
    if strength.endswith("time"):
        return _TIME_NAMES.get(level, f"{level:g} s")
    return f"{100 * level:g} %" if strength.startswith("weight.stuck") else f"{level:g}"


def table_of(summaries: Mapping[str, CurveSummary], worst: Mapping[str, float], level: float) -> str:
    """Return the Markdown table of one evaluation: a row for each training, a column for each level."""
    strength = next(iter(summaries.values())).strength.path
    levels = next(iter(summaries.values())).frame["strength"].tolist()
    heads = [level_name(strength, value) for value in levels]
    lines = [
        "| trained | " + " | ".join(heads) + f" | worst chip, {level_name(strength, level)} |",
        "|---|" + "---:|" * (len(heads) + 1),
    ]
    for label, summary in summaries.items():
        cells = [
            format_accuracy(*row)
            for row in summary.frame[["accuracy", "low", "high"]].itertuples(index=False)
        ]
        lines.append(f"| {label} | " + " | ".join([*cells, f"{100 * worst[label]:.1f}"]) + " |")
    return "\n".join(lines)


def figure_of(summaries: Mapping[str, CurveSummary], title: str) -> Figure:
    """Return the figure of accuracy over the levels, with the part of the axis in which it lies."""
    figure = noise_curves_figure(summaries, title)
    lows = [
        100 * summary.frame["low"].fillna(summary.frame["accuracy"]).min() for summary in summaries.values()
    ]
    highs = [
        100 * summary.frame["high"].fillna(summary.frame["accuracy"]).max() for summary in summaries.values()
    ]
    limits = (5 * math.floor(min(lows) / 5), min(100, 5 * math.ceil(max(highs) / 5)))
    (panel,) = figure.panels
    lines = tuple(element for element in panel.elements if isinstance(element, Line))
    return replace(figure, panels=(replace(panel, y=replace(panel.y, limits=limits), elements=lines),))


def clean_table(folder: Path) -> str:
    """Return the Markdown table of accuracy without any noise, and under Gaussian noise."""
    sigmas = (0.0, 1.0, 2.0, 3.0)
    lines = [
        "| trained | seeds | " + " | ".join(f"σ_infer {sigma:g}" for sigma in sigmas) + " |",
        "|---|---:|" + "---:|" * len(sigmas),
    ]
    for training, label in TRAININGS.items():
        curves = [
            NoiseCurve.from_csv(run / "noise_curve.csv")
            for run in runs_of(folder, training)
            if (run / "noise_curve.csv").is_file()
        ]
        if curves:
            rows = summarise_curves(curves).frame.set_index("strength")
            cells = [format_accuracy(*rows.loc[sigma, ["accuracy", "low", "high"]]) for sigma in sigmas]
            lines.append(f"| {label} | {len(curves)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Fill the document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("--document", type=Path)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    tables = {"clean": clean_table(options.runs)}
    for evaluation, title in EVALUATIONS.items():
        curves = dict(curves_of(options.runs, evaluation))
        if not curves:
            continue
        summaries = {label: summarise_curves(seeds) for label, seeds in curves.items()}
        frame = next(iter(curves.values()))[0].frame
        levels = sorted(frame["strength"].unique())
        is_time = next(iter(summaries.values())).strength.path.endswith("time")
        shown = 86400.0 if is_time and 86400.0 in levels else levels[0 if "bits" in evaluation else -1]
        worst = {}
        for label, seeds in curves.items():
            chips = [
                curve.frame[curve.frame["strength"] == shown].groupby("chip")["accuracy"].mean()
                for curve in seeds
            ]
            worst[label] = min(float(accuracies.min()) for accuracies in chips)
        note = "; ".join(
            f"{label}: {count(len(seeds), 'seed')} x {seeds[0].frame['chip'].nunique()} chips"
            for label, seeds in curves.items()
        )
        tables[evaluation] = f"{table_of(summaries, worst, shown)}\n\nAccuracy in %; {note}."
        if options.figures and evaluation in DRAWN:
            save_figure(
                figure_of(summaries, title), options.figures / f"designers_{evaluation.replace('-', '_')}"
            )
    for name, text in tables.items():
        if options.document:
            fill(options.document, {name: text})
        else:
            print(f"## {name}\n\n{text}\n")


if __name__ == "__main__":
    main()
