"""The tables of an evaluation for the terminal."""

import math

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from asr_dni.evaluation.curves.curve import curve_label
from asr_dni.evaluation.curves.tables import format_accuracy, noise_curve_table
from asr_dni.evaluation.questions.evaluate import Result


def print_result(console: Console, result: Result) -> None:
    """Print what was found on one hardware: the curve and what it comes to, votes, calibration; else the parts."""
    if result.curve is not None:
        console.print(noise_curve_table({curve_label(result.curve.settings): result.curve}))
    # Beside a curve, what is of parts is left to the figures.
    of_parts = (("sensitivity", sensitivity_rows), ("budget", budget_rows), ("cost", cost_rows))
    for name, table in (
        ("summary", summary_rows),
        ("voting", voting_rows),
        ("calibration", calibration_rows),
        *(of_parts if result.curve is None else ()),
    ):
        if name in result.tables:
            console.print(table(result.tables[name]))


def summary_rows(summary: pd.DataFrame) -> Table:
    """Return the table ``summary``."""
    table = _table("What it comes to", "", "", "")
    for row in summary.to_dict("records"):
        share = "accuracy" in row["quantity"] or row["quantity"] == "area"
        value = row["value"]
        if share:
            text = f"{format_accuracy(value, row['low'], row['high'])} %"
        else:
            text = "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.4g}"
        table.add_row(row["quantity"].replace("_", " "), text, Text(row["text"]))
    return table


def voting_rows(voting: pd.DataFrame) -> Table:
    """Return the accuracy of the mean posterior of several inferences, a column for each number of votes."""
    own = voting[voting["rule"] == "mean"]
    wide = own.pivot_table(index="strength", columns="votes", values="accuracy")
    table = _table(
        "Accuracy (%) of votes (mean posterior), by their number", "strength", *map(str, wide.columns)
    )
    for strength, row in wide.iterrows():
        table.add_row(f"{strength:g}", *(f"{100 * value:.1f}" for value in row))
    return table


def calibration_rows(calibration: pd.DataFrame) -> Table:
    """Return the expected calibration error, mean over chips."""
    means = calibration.groupby("strength").mean(numeric_only=True)
    table = _table(
        "Calibration (%), mean over chips; scaled: by a temperature from other clips",
        *("strength", "confidence", "accuracy", "ECE", "ECE scaled", "temperature"),
    )
    for strength, row in means.iterrows():
        shares = (f"{100 * row[name]:.1f}" for name in ("confidence", "accuracy", "ece", "ece_scaled"))
        table.add_row(f"{strength:g}", *shares, f"{row['temperature']:.2f}")
    return table


def sensitivity_rows(sensitivity: pd.DataFrame) -> Table:
    """Return the accuracy with noise at one part, a column for each strength."""
    wide = sensitivity.pivot_table(index="part", columns="strength", values="accuracy", sort=False)
    title = "Accuracy (%) with noise at one part only, by its strength"
    table = _table(title, "part", *(f"{strength:g}" for strength in wide.columns))
    for part, row in wide.iterrows():
        table.add_row(Text(str(part)), *(f"{100 * value:.1f}" for value in row))
    return table


def budget_rows(budget: pd.DataFrame) -> Table:
    """Return how much each part bears alone, and all together."""
    table = _table("Strength that a part bears", "part", "alone", "all at once")
    for row in budget.to_dict("records"):
        values = ("–" if math.isnan(row[name]) else f"{row[name]:.3g}" for name in ("alone", "together"))
        table.add_row(Text(row["part"]), *values)
    return table


def cost_rows(cost: pd.DataFrame) -> Table:
    """Return what one inference takes; the energy is an estimate, and there where its constants are known."""
    known = cost["energy_joules"].notna().all()
    names = ["multiplications", "cells", "dac_conversions", "adc_conversions"]
    title = "One inference" + (
        " (energy: an estimate, counts times the constants that were given)" if known else ""
    )
    table = _table(
        title, "part", *(name.replace("_", " ") for name in names), *(["energy / nJ"] if known else [])
    )
    for row in cost.to_dict("records"):
        energy = [f"{1e9 * row['energy_joules']:.4g}"] if known else []
        table.add_row(Text(row["part"]), *(f"{row[name]:,.0f}" for name in names), *energy)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(Text(name, overflow="fold"), justify="left" if place == 0 or not name else "right")
    return table
