"""The file of a noise curve: what is written comes back, and what is damaged is refused."""

import math
import re

import pandas as pd
import pytest
from standin_network import MarginNetwork, batches, make_clips
from test_noise_curve import accuracy_curve

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.curve_file import COLUMNS
from asr_dni.evaluation.measurement.measuring import measure_noise_curve
from asr_dni.noise import Noise, Strength


@pytest.fixture(scope="module")
def clips():
    return make_clips(600)


def test_csv_round_trip_is_exact(tmp_path, clips):
    curve = measure_noise_curve(
        MarginNetwork(),
        batches(clips, 600),
        [0, 0.1, 1 / 3],
        2,
        Noise(),
        {"data": "line\nbreak # and: colon", "label": 'σ "x"', "seed": None},
    )
    path = curve.to_csv(tmp_path / "new" / "noise_curve.csv")
    back = NoiseCurve.from_csv(path)
    pd.testing.assert_frame_equal(back.frame, curve.frame, check_exact=True)
    assert back.settings == curve.settings
    assert '# label: "σ \\"x\\""' in path.read_text(encoding="utf-8").splitlines()
    assert [file.name for file in path.parent.iterdir()] == ["noise_curve.csv"]


def test_pandas_reads_the_csv_in_one_call(tmp_path):
    curve = accuracy_curve([0.9, 0.8], draws=3, spread=0.01)
    frame = pd.read_csv(curve.to_csv(tmp_path / "curve.csv"), comment="#")
    pd.testing.assert_frame_equal(frame, curve.frame)


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "# scale: oops\n", f"{','.join(COLUMNS)}\n", f"{','.join(COLUMNS)}\nx,0,1,1,1,1\n"],
)
def test_other_files_are_not_curves(tmp_path, text):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"other\.csv is not a noise curve"):
        NoiseCurve.from_csv(path)


FIRST_VERSION = """\
# draws: 2
sigma,draw,snr_db,accuracy,loss,n_clips
0.0,0,inf,0.9,0.5,845
4.0,0,-12.0,0.5,inf,845
4.0,1,,0.5,,845
"""
SECOND_VERSION = """\
# noise_curve: {"version": 2, "rows": 3, "strength": {"path": "output.sigma", "unit": ""}}
strength,chip,draw,snr_db,accuracy,loss,n_clips
0.0,0,0,inf,0.9,0.5,845
4.0,0,0,-12.0,0.5,inf,845
4.0,0,1,,0.5,,845
"""
versions = pytest.mark.parametrize(
    "text", [FIRST_VERSION, SECOND_VERSION], ids=["first version", "second version"]
)


@versions
def test_an_snr_or_loss_may_be_unknown_or_infinite(tmp_path, text):
    path = tmp_path / "noise_curve.csv"
    path.write_text(text)
    curve = NoiseCurve.from_csv(path)
    frame = curve.frame
    assert frame["strength"].tolist() == [0, 4, 4]
    assert frame["chip"].tolist() == [0, 0, 0]
    assert frame["snr_db"].isna().tolist() == frame["loss"].isna().tolist() == [False, False, True]
    assert frame["n_clips"].tolist() == [845] * 3
    assert frame.dtypes[["chip", "draw", "n_clips"]].tolist() == ["int64"] * 3
    assert curve.strength == Strength()


def test_a_file_of_the_first_version_is_the_same_curve_as_one_of_the_second(tmp_path):
    """Runs of before and of now are pooled: their settings are the same."""
    path = tmp_path / "noise_curve.csv"
    path.write_text(f'# scale: "signal"\n{FIRST_VERSION}')
    first = NoiseCurve.from_csv(path)
    assert first.strength == Strength.sigma("signal")
    second = NoiseCurve.from_csv(first.to_csv(path))
    assert path.read_text().startswith(
        '# noise_curve: {"version": 2, "rows": 3, "strength": {"path": "output.sigma"'
    )
    assert second.settings == first.settings == {"scale": "signal", "draws": 2}
    pd.testing.assert_frame_equal(first.frame, second.frame)


def test_chips_and_another_strength_come_back(tmp_path):
    strength = Strength("adc.bits", "bits")
    rows = [
        (bits, chip, draw, math.nan, 0.5 + bits / 20, 1.0, 845)
        for bits in (4, 8)
        for chip in (0, 1)
        for draw in (0, 1)
    ]
    curve = NoiseCurve(
        pd.DataFrame(rows, columns=list(COLUMNS)), {"strength": strength.as_dict(), "draws": 2}
    )
    back = NoiseCurve.from_csv(curve.to_csv(tmp_path / "noise_curve.csv"))
    assert back.strength == strength
    assert back.settings == curve.settings
    pd.testing.assert_frame_equal(back.frame, curve.frame, check_dtype=False)


@versions
def test_wherever_a_file_is_cut_it_is_no_curve(tmp_path, text):
    """In a file of the first version a level that is cut off as a whole is the exception: it does not know of it."""
    path = tmp_path / "noise_curve.csv"
    rows = [number for number, character in enumerate(text) if character == "\n"][2:]
    for end in range(len(text)):
        path.write_text(text[:end])
        if text is FIRST_VERSION and end == rows[0] + 1:
            assert NoiseCurve.from_csv(path).levels == [0.0]
            continue
        with pytest.raises(UserError, match=r"noise_curve\.csv is not a noise curve: ") as caught:
            NoiseCurve.from_csv(path)
        assert "\n" not in str(caught.value)
        if end > rows[0]:
            assert re.search(r"line [345]\b", str(caught.value))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0.9", "7.6", "line 3: accuracy is 7.6, expected a share of 1, from 0 to 1"),
        ("0.9", "-0.1", r"line 3: accuracy is -0\.1"),
        ("0.9", "nan", "line 3: accuracy is missing"),
        ("0.9", "x", "line 3: accuracy is x"),
        ("inf,845", "inf,", "line 4: n_clips is missing"),
        ("inf,845", "inf,84", "line 4: n_clips is 84, but 845 in line 3"),
        ("inf,845", "inf,844.5", r"line 4: n_clips is 844\.5"),
        ("inf,845", "inf,inf", "line 4: n_clips is inf"),
        ("845", "0", "line 3: n_clips is 0"),
        ("0.0,0", "inf,0", "line 3: sigma is inf"),
        ("0.0,0", "-1,0", "line 3: sigma is -1"),
        ("0.0,0", ",0", "line 3: sigma is missing"),
        ("4.0,1,", "4.0,1.5,", r"line 5: draw is 1\.5"),
        ("4.0,1,", "4.0,1,x", "line 5: snr_db is x"),
        ("4.0,1,", "4.0,0,", "line 5: sigma 4 has draw 0 a second time"),
        ("4.0,1,", "3.0,1,", "sigma 3, up to line 5, lacks draw 0 of 0 to 1"),
        ("draws: 2", "draws: 3", "sigma 4, up to line 5, lacks draw 2 of 0 to 2"),
        ("draws: 2", "draws: 1", "sigma 4, up to line 5, has 2 draws, but draws is 1"),
        ("inf,845", "-1,845", "line 4: loss is -1"),
        ("0.9,0.5,845", "0.9,0.5,845,1", "line 3 has more values than there are columns"),
    ],
)
def test_a_damaged_row_is_told_with_its_line(tmp_path, old, new, said):
    path = tmp_path / "noise_curve.csv"
    path.write_text(FIRST_VERSION.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"noise_curve\.csv is not a noise curve: {said}"):
        NoiseCurve.from_csv(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\n0.0,0,0", "\n-1,0,0", "line 3: strength is -1.0, expected a finite number of at least 0"),
        ("\n0.0,0,0", "\ninf,0,0", "line 3: strength is inf"),
        ("4.0,0,1,", "4.0,0.5,1,", r"line 5: chip is 0\.5"),
        ("4.0,0,1,", "4.0,0,0,", "line 5: sigma 4 has draw 0 of chip 0 a second time"),
        ("4.0,0,1,", "4.0,1,1,", "sigma 4, up to line 5, lacks draw 1 of chip 0"),
        ("4.0,0,1,", "4.0,0,9007199254740992,", "sigma 4, up to line 5, lacks draw 1 of chip 0"),
        ('"rows": 3', '"rows": 4', "it ends in line 5 with 3 rows, but has 4"),
        (
            '"version": 2',
            '"version": 3',
            "it is of version 3 of the file, this program reads up to version 2",
        ),
        ('"rows": 3, ', "", "its line 'noise_curve' should hold version, rows and strength"),
        ('"rows": 3', '"rows": "x"', "its line 'noise_curve' should hold version, rows and strength"),
        ("output.sigma", "Output.sigma", "strength is 'Output.sigma'"),
        ("# noise_curve", "# noise", "its line 'noise_curve', which says what it is, is missing"),
    ],
)
def test_a_damaged_file_of_the_second_version_is_told(tmp_path, old, new, said):
    path = tmp_path / "noise_curve.csv"
    assert old in SECOND_VERSION
    path.write_text(SECOND_VERSION.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"noise_curve\.csv is not a noise curve: {said}"):
        NoiseCurve.from_csv(path)


def test_the_only_column_that_is_missing_is_named():
    frame = accuracy_curve([0.9]).frame
    for column in COLUMNS:
        with pytest.raises(UserError, match=f"the columns strength, chip, draw, .*: {column} is missing"):
            NoiseCurve(frame.drop(columns=column))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.csv can't be read"):
        NoiseCurve.from_csv(tmp_path / "nothing.csv")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = accuracy_curve([0.9]).to_csv(tmp_path / "curve.csv")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        accuracy_curve([0.8], data=object()).to_csv(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
