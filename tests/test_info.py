"""What `asr-dni info` says against what runs."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from asr_dni.cli.info import CASES, implementation_of
from asr_dni.cli.main import main
from asr_dni.nn import NoisyGRU, NoisyLSTM, NoisyRNN, calibrate, learn_bounds, native, use_implementation
from asr_dni.nn.implementation import IMPLEMENTATIONS
from asr_dni.nn.stacking import stack_networks

CPU = torch.device("cpu")
LAYERS = {"rnn_tanh": NoisyRNN, "lstm": NoisyLSTM, "gru": NoisyGRU}
BY_NAME = {case.name: case for case in CASES}
needs_compiler = pytest.mark.skipif(
    native.library() is None, reason=f"no compiled kernels here: {native.status()}"
)


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch):
    monkeypatch.delenv("ASR_DNI_IMPLEMENTATION", raising=False)


def run(cell, case):
    """Run a layer as a user would who has this case."""
    options = {"proj_size": 4} if case.projected else {}
    layers = [LAYERS[cell](3, 8, dtype=case.dtype, **options) for _ in range(case.networks)]
    layer = layers[0] if case.networks == 1 else stack_networks(layers)
    learn_bounds(layer, case.hardware)
    x = torch.randn(5, 2, 3, dtype=case.dtype)
    if case.packed:
        x = pack_padded_sequence(x, torch.tensor([5, 3]))
    if case.hardware.needs_sizes:
        calibrate(layer, [x])
    with layer.under(case.hardware), torch.autocast("cpu", torch.bfloat16, enabled=case.autocast):
        layer(x)


@pytest.fixture
def that_ran(monkeypatch):
    """Names of the implementations of the registry that were called."""
    called = []

    def note(name, run):
        def noted(*arguments, **keywords):
            called.append(name)
            return run(*arguments, **keywords)

        return noted

    for name, implementation in IMPLEMENTATIONS.items():
        monkeypatch.setattr(implementation, "run", note(name, implementation.run))
    return called


@pytest.mark.parametrize("setting", ["auto", "reference", *IMPLEMENTATIONS])
@pytest.mark.parametrize("case", BY_NAME)
@pytest.mark.parametrize("cell", LAYERS)
def test_what_is_said_is_what_runs(cell, case, setting, that_ran):
    case = BY_NAME[case]
    if case.projected and cell != "lstm":
        pytest.skip("torch has proj_size for the LSTM only")
    with use_implementation(setting):
        said = implementation_of(cell, case, CPU, units=8)
        if said.name == "none":
            with pytest.raises(RuntimeError) as raised:
                run(cell, case)
            assert said.why == str(raised.value)
            return
        run(cell, case)
    assert set(that_ran) == ({said.name} - {"reference"})
    assert bool(said.why) == (said.name == "reference")


@needs_compiler
def test_what_is_for_another_device_is_no_reason():
    """Where an implementation runs anything at all on the device, those that run nothing there are not mentioned."""
    why = implementation_of("lstm", BY_NAME["float64"], CPU).why
    assert "float64" in why
    assert "Triton" not in why


@needs_compiler
@pytest.mark.parametrize(
    ("case", "name", "why"),
    [
        ("float32", "fused", ""),
        ("multiplicative noise", "fused", ""),
        ("an ADC", "fused", ""),
        ("a DAC", "fused", ""),
        ("an ADC that is learned", "reference", "whose bound is being learned"),
        ("float64", "reference", "float64"),
        ("autocast to bfloat16", "fused", ""),
    ],
)
def test_on_a_machine_with_a_compiler(case, name, why):
    use = implementation_of("lstm", BY_NAME[case], CPU)
    assert use.name == name
    assert why in use.why


def test_the_setting_of_the_environment_is_told(monkeypatch, capsys):
    main(["info"])
    assert re.search(r"^recurrence +auto: .*not set", capsys.readouterr().out, re.MULTILINE)
    monkeypatch.setenv("ASR_DNI_IMPLEMENTATION", "reference")
    main(["info"])
    said = capsys.readouterr().out
    assert re.search(r"^recurrence +reference: .*ASR_DNI_IMPLEMENTATION", said, re.MULTILINE)
    assert "the reference was asked" in said
    assert not re.search(r"│ +fused +│", said)


def test_an_unknown_setting_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("ASR_DNI_IMPLEMENTATION", "fast")
    with pytest.raises(SystemExit) as ended:
        main(["info"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "ASR_DNI_IMPLEMENTATION is 'fast'" in error


def test_kernels_that_are_switched_off(monkeypatch, capsys):
    monkeypatch.setenv("ASR_DNI_NATIVE", "0")
    native.forget()
    try:
        main(["info"])
        use = implementation_of("lstm", BY_NAME["float32"], CPU)
    finally:
        monkeypatch.undo()
        native.forget()
    said = capsys.readouterr().out
    assert re.search(r"^C kernels +reference \(switched off by ASR_DNI_NATIVE=0\)", said, re.MULTILINE)
    assert use.name == "reference"
    assert "switched off by ASR_DNI_NATIVE=0" in use.why


def test_every_case_has_a_row_and_lines_are_short(capsys):
    main(["info"])
    said = capsys.readouterr().out
    for case in CASES:
        assert re.search(rf"│ cpu +│ {re.escape(case.name)} +│", said)
    assert max(map(len, said.splitlines()[-20:])) <= 120


def test_costs_are_those_of_the_document():
    """Each was measured by benchmarks/hardware_costs.py, whose table the document has."""
    rows = {}
    for line in (Path(__file__).parents[1] / "docs" / "costs.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 3 and cells[2] in ("fused", "plain loop"):
            rows |= {
                name.strip(): cost.split(" (")[0]
                for name, cost in zip(cells[0].split(";"), cells[1].split(";"), strict=True)
            }
    rows = {name: cost.strip() for name, cost in rows.items()}
    told = {
        "float32": "Gaussian noise",
        "float32, packed sequences": "Gaussian noise, packed sequences of half to all steps",
        "float32, proj_size": "Gaussian noise, `proj_size` 64",
        "multiplicative noise": "multiplicative noise, whose numbers are drawn before for all steps",
        "an ADC": "ADC, 8 bits",
        "a DAC": "DAC, 8 bits",
        "read noise of the cells": "read noise that follows the inputs",
        "IR drop": "IR drop",
        "float64": "Gaussian noise, ADC and DAC, by the plain loop (also float64)",
    }
    assert {case.name: case.cost for case in CASES if case.cost} == {
        name: rows[row] for name, row in told.items()
    }
