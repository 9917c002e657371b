"""`asr-dni noise`: what hardware and noise models there are, in words, numbers and a figure."""

import dataclasses
import re

import numpy as np
import pytest

from asr_dni.cli.main import main
from asr_dni.evaluation.figures.devices import device_figure
from asr_dni.hardware_files import hardware_names
from asr_dni.noise import CONVERTERS, DEVICES, OUTPUT_MODELS, PCM, WEIGHT_MODELS, PCMJoshi, ReRAMWan2022

MODELS = OUTPUT_MODELS | WEIGHT_MODELS | CONVERTERS


def ran(capsys, *command: object) -> str:
    capsys.readouterr()
    main(["noise", *map(str, command)])
    return capsys.readouterr().out


def fails(capsys, *command: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["noise", *map(str, command)])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said.err), said.err
    return said.err


def test_list_has_a_line_for_all_that_there_is(capsys):
    said = ran(capsys, "list")
    for name in (*hardware_names(), *MODELS):
        assert re.search(rf"^  {name} +\S.{{15,}}$", said, re.MULTILINE), name
    assert max(map(len, said.splitlines())) <= 120


@pytest.mark.parametrize("name", [*hardware_names(), *MODELS])
def test_show_says_what_every_number_is(name, capsys):
    said = ran(capsys, "show", name)
    kind = MODELS.get(name)
    for its in [] if kind is None else dataclasses.fields(kind):
        assert re.search(rf"^  {its.name} +\S+ .*\S.{{5,}}$", said, re.MULTILINE), its.name
    assert "``" not in said
    assert ":class:" not in said
    assert max(map(len, said.splitlines())) <= 120


def test_every_device_has_units_and_a_source(capsys):
    for name in DEVICES:
        said = ran(capsys, "show", name)
        assert name == "StuckCells" or re.search(
            r"Source( of the laws)?: (IBM/aihwkit|sandialabs/cross-sim)", said
        )
        assert re.search(r"µS|nA|g_max", said)


def test_show_of_hardware_has_its_settings_in_the_order_of_a_product(capsys, tmp_path):
    said = ran(capsys, "show", "pcm_8bit")
    places = [said.index(part) for part in ("dac: Uniform", "weight: Clipped", "weight: PCM", "adc: Uniform")]
    assert places == sorted(places)
    assert re.search(r"^  time +3600 +s +seconds since programming", said, re.MULTILINE)
    file = tmp_path / "mine.yaml"
    file.write_text("layers: [hardware/pcm]\noutput: {sigma: 0.25}\n")
    assert re.search(r"^  sigma +0.25 ", ran(capsys, "show", file), re.MULTILINE)


@pytest.mark.parametrize("ending", ["png", "html"])
def test_figure(ending, capsys, tmp_path):
    file = tmp_path / "new" / f"pcm.{ending}"
    assert f"figure: {file}" in ran(capsys, "show", "pcm", "--figure", file)
    assert file.stat().st_size > 10_000
    assert list(tmp_path.rglob("*.*")) == [file]


@pytest.mark.parametrize("kind", DEVICES.values(), ids=DEVICES)
def test_every_device_can_be_drawn(kind):
    figure = device_figure(kind(), kind.__name__)
    assert figure.title == kind.__name__
    for line in (line for panel in figure.panels for line in panel.elements):
        assert np.isfinite(line.y).all()


def test_what_is_drawn_is_the_device():
    """Means and deviations of 8000 devices, the same in every run."""
    over_g, over_time = device_figure(PCM(time=7.0), "pcm").panels
    programming = over_g.elements[0]
    g = np.array(programming.x)
    np.testing.assert_allclose(programming.y, 0.26348 + 1.9650 * g / 25 - 1.1731 * (g / 25) ** 2, rtol=1e-4)
    assert [line.label for line in over_g.elements[1:]] == [
        f"read after {when}" for when in ("1 s", "1 hour", "1 day", "1 year")
    ]
    at_max = over_time.elements[-1]
    assert at_max.label == "g = 25 µS"
    np.testing.assert_allclose(at_max.y, ((np.array(at_max.x) + 20) / 20) ** -0.049, rtol=0.01)
    assert len(device_figure(PCMJoshi(), "joshi").panels) == 1
    wan = device_figure(ReRAMWan2022(), "wan")
    assert wan.panels[1].x.limits == (1.0, 172800.0)
    assert [line.label for line in wan.panels[0].elements][-1] == "read after 1 day"


def test_mistakes_are_one_line(capsys, tmp_path):
    assert "no hardware and no noise model 'pmc': asr-dni noise list" in fails(capsys, "show", "pmc")
    assert "gaussian has no memory devices" in fails(
        capsys, "show", "gaussian", "--figure", tmp_path / "x.png"
    )
    assert "give a name that ends in .png, .svg, .pdf or .html" in fails(
        capsys, "show", "pcm", "--figure", tmp_path / "x.gif"
    )
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("weight: {class_path: SONOS, init_args: {time: 1.0e+9}}\n")
    assert "SONOS is known from 0 to 432000 s" in fails(capsys, "show", wrong)
    assert not list(tmp_path.glob("x.*"))
