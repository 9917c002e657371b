import io
import math
import re

import pandas as pd
import pytest
from rich.console import Console
from rich.style import Style
from test_figures import make_curve

from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.tables import format_accuracy, noise_curve_markdown, noise_curve_table


def render(table, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.921, 0.917, 0.925), "92.1 ± 0.4"),
        ((0.995, 0.982, 0.999), "99.5 [98.2, 99.9]"),
        ((0.5, math.nan, math.nan), "50.0"),
        ((0.5, math.nan, 0.6), "50.0"),
        ((0.924, 0.924, 0.924), "92.4 ± 0.0"),
    ],
)
def test_format_accuracy(values, text):
    assert format_accuracy(*values) == text


def test_table_of_one_curve():
    text = render(noise_curve_table({"mine": make_curve(n_classes=4)}))
    cells = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    # scipy.stats.binomtest(k, 845).proportion_ci(method="wilson") for k / 845 = 0.9 and 0.81
    assert cells["0"] == ["0", "∞", "90.0", "[87.8,", "91.8]", "0.500"]
    assert cells["1"] == ["1", "0.0", "81.0", "[78.2,", "83.5]", "0.500"]
    assert cells["2"][:2] == ["2", "−6.0"]
    # half-way from 0.9 to 0.25 is 0.575, between 0.81 at 1 and 0.31 at 2
    assert cells["midpoint"] == ["midpoint", "1.47"]
    assert "over 845 test clips, draws of the noise included (Wilson)" in " ".join(text.split())


def test_intervals_of_one_curve_are_written_in_one_way():
    """At 0.5 the interval is as wide on both sides, at 0.9 it is lopsided."""
    curve = make_curve(n_classes=4)
    curve.frame.loc[curve.frame["strength"] == 2, "accuracy"] = 0.5
    text = noise_curve_markdown({"mine": curve})
    assert "±" not in text
    assert "50.0 [46.6, 53.4]" in text


def test_below_a_table_stands_what_the_midpoint_is():
    curves = {"mine": make_curve(n_classes=4)}
    meaning = "midpoint: the σ_infer at which accuracy has fallen half-way from its clean value to chance"
    assert " ".join(render(noise_curve_table(curves)).split()).endswith(meaning)
    assert noise_curve_markdown(curves).endswith(f"; {meaning}.\n")


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("all words, own test split", "all words, own test split; 845 clips; "),
        ("12 labels, test archive", "12 labels, test archive; 845 clips (test split); "),
    ],
)
def test_the_split_is_said_once(protocol, said):
    assert said in noise_curve_markdown({"mine": make_curve(protocol=protocol, split="test")})


def test_table_of_curves_with_their_own_snr():
    text = render(
        noise_curve_table({"one": make_curve(n_classes=4), "two": make_curve((0.9, 0.9, 0.8), snr_at_1=3.0)})
    )
    rows = text.splitlines()
    at_1 = next(index for index, row in enumerate(rows) if row.split()[:1] == ["1"])
    assert rows[at_1].split()[1:] == ["81.0", "[78.2,", "83.5]", "91.0", "[88.9,", "92.7]"]
    assert rows[at_1 + 1].split() == ["0.0", "dB", "3.0", "dB"]
    assert next(row for row in rows if "midpoint" in row).split() == ["midpoint", "1.47", ">", "2"]


def test_five_curves_fit_80_columns():
    curves = {f"DNI σ_train={sigma}": make_curve(snr_at_1=sigma) for sigma in (0.5, 1, 2, 3)}
    text = render(noise_curve_table({"conventional": make_curve()} | curves))
    assert "…" not in text
    assert "σ_train=0.5" in text
    assert "conventional" in text


def test_numbers_stand_below_each_other_and_below_their_heading():
    text = render(noise_curve_table({"mine": make_curve(n_classes=4)}), width=100)
    title, *lines = text.splitlines()
    assert title.rstrip() == "Accuracy (%) under computation noise"
    cells = [list(re.finditer(r"\S+(?: \S+)*", line)) for line in lines]
    table = [found for found in cells if len(found) == 4]
    assert [found[0].group() for found in table] == ["σ_infer", "0", "1", "2"]
    for column in range(4):
        assert len({found[column].end() for found in table}) == 1
    midpoint = next(found for found in cells if found and found[0].group() == "midpoint")
    assert midpoint[0].start() == 1  # no room is lost at the edge
    assert [cell.end() for cell in midpoint] == [table[0][column].end() for column in (0, 2)]
    above = lines.index(next(line for line in lines if line.split()[:1] == ["midpoint"]))
    caption = [line for line in lines[above + 1 :] if line.strip()]
    assert caption[0].startswith("845 clips")
    assert not any(line.startswith(" ") for line in caption)


def test_accuracies_stand_out_on_a_terminal():
    def styles(curves):
        segments = Console(width=100, file=io.StringIO()).render(noise_curve_table(curves))
        return {segment.text.strip(): segment.style or Style() for segment in segments}

    found = styles({"mine": make_curve(n_classes=4)})
    assert found["Accuracy (%) under computation noise"].bold
    assert all(found[text].dim for text in ("−6.0", "0.500"))
    assert not found["90.0 [87.8, 91.8]"].dim
    assert found["1.47"].italic
    found = styles({"one": make_curve(), "two": make_curve(snr_at_1=3.0)})
    assert found["3.0 dB"].dim
    assert not found["90.0 [87.8, 91.8]"].dim


def test_an_snr_that_all_share_is_there_once():
    text = render(noise_curve_table({"one": make_curve(), "two": make_curve((0.9, 0.9, 0.8))}))
    assert len(re.findall(r"−6\.0", text)) == len(re.findall("∞", text)) == 1
    assert len(re.findall("dB", text)) == 1
    assert "loss" not in text


def test_a_label_is_there_in_full():
    label = "x" * 60
    text = render(noise_curve_table({label: make_curve()}), width=50)
    assert text.count("x") == 60


def test_labels_are_not_markup():
    assert "[bold]mine" in render(noise_curve_table({"[bold]mine": make_curve()}))


def test_markdown_is_a_table():
    text = noise_curve_markdown(
        {"a|b": make_curve(n_classes=4), "two": make_curve((0.9, 0.9, 0.8), snr_at_1=3.0)}
    )
    header, rule, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert header == "| σ_infer | a\\|b | SNR / dB | two | SNR / dB |"
    assert rule == "| ---: | ---: | ---: | ---: | ---: |"
    assert rows[1] == "| 1 | 81.0 [78.2, 83.5] | 0.0 | 91.0 [88.9, 92.7] | 3.0 |"
    assert rows[3] == "| midpoint | 1.47 |  | > 2 |  |"
    assert text.splitlines()[-1].startswith("Accuracy in %; ")


def test_levels_that_a_curve_lacks_are_blank():
    text = noise_curve_markdown({"long": make_curve((0.9, 0.8, 0.3, 0.2)), "short": make_curve((0.9, 0.8))})
    assert "| 3 | −9.5 | 21.0 [18.4, 23.9] |  |" in text
    curves = {"one": make_curve(), "short": make_curve((0.9, 0.8)), "other": make_curve(snr_at_1=3.0)}
    text = noise_curve_markdown(curves)
    assert "| 2 | 31.0 [28.0, 34.2] | −6.0 |  |  | 31.0 [28.0, 34.2] | −3.0 |" in text
    text = render(noise_curve_table(curves))
    at_2 = next(line for line in text.splitlines() if line.split()[:1] == ["2"])
    assert at_2.split() == ["2", "31.0", "[28.0,", "34.2]", "31.0", "[28.0,", "34.2]"]


def test_a_midpoint_that_is_not_defined_is_a_dash():
    text = noise_curve_markdown({"no chance": make_curve(n_classes=None)})
    assert "| midpoint |  | – |  |" in text


def test_a_curve_of_several_chips_has_both_intervals():
    curve = make_curve((0.9, 0.8))
    noisy = curve.frame[curve.frame["strength"] > 0]
    chips = [noisy.assign(chip=chip, accuracy=noisy["accuracy"] - 0.02 * chip) for chip in (1, 2)]
    of_chips = NoiseCurve(pd.concat([curve.frame, *chips]), curve.settings)
    head, _, clean, level, *_ = [
        line.split(" | ") for line in noise_curve_markdown({"mine": of_chips}).splitlines()
    ]
    assert [cell.strip(" |") for cell in head[-2:]] == ["over draws", "over chips"]
    assert [cell.strip(" |") for cell in clean[-2:]] == ["[90.0, 90.0]", "[90.0, 90.0]"]
    # Student t: of draws 0.78, 0.79, 0.80, of chips 0.81, 0.79, 0.77; t = 4.3027 with two degrees of freedom.
    expected = [
        (79.0 - half, 79.0 + half)
        for half in (100 * 4.302653 * 0.01 / 3**0.5, 100 * 4.302653 * 0.02 / 3**0.5)
    ]
    assert [cell.strip(" |") for cell in level[-2:]] == [f"[{low:.1f}, {high:.1f}]" for low, high in expected]
    assert "over draws" not in noise_curve_markdown({"mine": curve})
