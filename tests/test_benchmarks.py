"""The benchmark of the recurrence: that it computes what it says; nothing here depends on how fast anything is."""

import functools
import importlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from aihwkit_core import import_aihwkit
from torch.utils.flop_counter import FlopCounterMode
from torch_threads import threads

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import evaluation_in_aihwkit  # noqa: E402
import gpu_results  # noqa: E402
import growth  # noqa: E402
import hardware_costs  # noqa: E402
import levers  # noqa: E402
import measuring  # noqa: E402
import recurrence  # noqa: E402
from measuring import Rounds, Spread, Unavailable  # noqa: E402
from recurrence import CLEAN, OFF, OWN, POPULATION, REFERENCE, Result, Setting, Target  # noqa: E402

from asr_dni.nn import use_implementation  # noqa: E402

NAN = math.nan
TINY = {"batch": 3, "steps": 4, "inputs": 5, "units": 6, "threads": 1}
TOOLKITS = (recurrence.LIGHTNING, recurrence.AIHWKIT, recurrence.AIHWKIT_PRESET)
SLOW = (*TOOLKITS, recurrence.COMPILED)  # which takes long to compile


class TestSpread:
    def test_median_and_quartiles(self):
        assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == (3.0, 2.0, 4.0)
        assert Spread.of([7.0]) == (7.0, 7.0, 7.0)
        assert Spread(1.234, 1.0, 2.0).text() == "1.23 (1.00 to 2.00)"
        with pytest.raises(ValueError, match="nothing was measured"):
            Spread.of([])

    def test_a_ratio_is_of_rounds(self):
        """The machine is three times slower in the second half; the ratio is 0.5 throughout."""
        rounds = Rounds(
            "ms", {"a": [1.0, 1.0, 3.0, 3.0], "b": [2.0, 2.0, 6.0, 6.0], "c": [4.0, NAN, NAN, 12.0]}
        )
        assert rounds.ratio("a", "b") == (0.5, 0.5, 0.5)
        assert rounds.ratio("c", "b") == (2.0, 2.0, 2.0)
        assert rounds.spread("c") == (8.0, 6.0, 10.0)
        assert rounds.count("c") == 2


class TestTakingTurns:
    def test_every_round_has_everyone_but_the_slow(self):
        calls = []
        makers = {name: (lambda name=name: lambda: calls.append(name)) for name in ("a", "b", "slow")}
        measured = measuring.measure_times(makers, 12, slow=["slow"])
        assert [measured.count(name) for name in ("a", "b", "slow")] == [12, 12, 3]
        assert {len(values) for values in measured.values.values()} == {12}
        assert calls.count("a") == calls.count("b") == 14  # one when it is made, one warm round
        turns = [
            tuple(calls[k : k + 2]) for k in range(len(calls)) if calls[k : k + 2] in (["a", "b"], ["b", "a"])
        ]
        assert len(set(turns)) == 2  # the order is not always the same

    def test_who_cannot_run_is_told(self):
        def absent():
            raise Unavailable("not installed")

        measured = measuring.measure_times({"a": lambda: lambda: None, "b": absent}, 2)
        assert list(measured.values) == ["a"]
        assert measured.missing == {"b": "not installed"}


MEGABYTE = 10**6


def take(name):
    """Memory that is known: ``name`` megabytes, which are written to."""
    if name == "absent":
        raise Unavailable("not installed")
    if name == "fatal":
        import os

        os._exit(3)

    def make(megabytes):
        return lambda: torch.ones(megabytes * MEGABYTE // 4)

    return measuring.peak_of(lambda: make(int(name)), lambda: make(0), torch.device("cpu"))


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc"
)
def test_peaks_of_known_size():
    measured = measuring.measure_peaks(["16", "64", "absent", "fatal"], take, rounds=1)
    assert measured.unit == "MB"
    assert measured.missing == {"absent": "not installed", "fatal": "its process ended early"}
    for megabytes in (16, 64):
        assert measured.spread(str(megabytes)).median == pytest.approx(megabytes, abs=3)


class TestWork:
    @pytest.mark.parametrize("task", ["forward", "train"])
    @pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
    def test_the_bound_counts_its_operations(self, cell, task):
        work, flops = recurrence.products(Setting(task, cell, **TINY))
        with FlopCounterMode(display=False) as counter:
            work()
        assert counter.get_total_flops() == flops

    @pytest.mark.parametrize("task", ["forward", "train"])
    def test_the_bound_is_what_the_reference_loop_multiplies(self, task):
        """But for the first step's and the last step's products, which a loop from a zero state may leave out."""
        setting = Setting(task, **TINY)
        layer = recurrence.layers_of(setting)[1]
        with FlopCounterMode(display=False) as counter:
            recurrence.layer_work(setting, layer, "reference")()
        one_step = 2 * setting.batch * 4 * setting.units * setting.units
        assert abs(counter.get_total_flops() - recurrence.products(setting)[1]) <= 2 * one_step

    @pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
    def test_contenders_of_a_layer_compute_the_same(self, cell):
        setting = Setting("train", cell, **TINY)
        theirs, ours = recurrence.layers_of(setting)
        x = recurrence.input_of(setting)
        torch.testing.assert_close(ours(x)[0], theirs(x)[0], atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("layers", [1, 2])
    def test_the_clean_network_is_ours_without_noise(self, layers):
        setting = Setting("curve", layers=layers, **TINY)
        network, batch = recurrence.network_of(setting, dropout=0.0), recurrence.batch_of(setting)
        clean = recurrence.CleanNetwork(network)
        torch.testing.assert_close(clean(batch.features), network(batch.features), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize(
        ("task", "names"),
        [
            ("forward", {CLEAN, recurrence.AUTOCAST, OFF, OWN, REFERENCE, recurrence.ARITHMETIC}),
            ("train", {CLEAN, recurrence.AUTOCAST, OFF, OWN, REFERENCE, recurrence.ARITHMETIC}),
            ("step", {CLEAN, OFF, OWN, REFERENCE}),
            ("curve", {CLEAN, recurrence.CLEAN_NETWORK, OWN, REFERENCE}),
            ("networks", {CLEAN, OFF, OWN, POPULATION}),
        ],
    )
    def test_every_task_has_its_contenders(self, task, names):
        result = recurrence.measure(Setting(task, networks=2, **TINY), 1, left_out=SLOW)
        assert names <= set(result.rounds.values)
        assert not result.rounds.missing
        assert all(value > 0 for values in result.rounds.values.values() for value in values)

    def test_the_compiled_loop_is_an_lstm_with_noise(self, monkeypatch):
        """As torch's own layer computes it, where the noise is nothing; compiled it is the same code."""
        monkeypatch.setattr(torch, "compile", lambda step: step)
        monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
        loop, theirs = recurrence.toolkits.compiled_loop("lstm", 5, 6), torch.nn.LSTM(5, 6)
        for ours, its in zip(
            loop.parameters(), ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0"), strict=True
        ):
            ours.data.copy_(getattr(theirs, its))
        x = torch.randn(4, 3, 5)
        torch.testing.assert_close(loop(x)[0], theirs(x)[0])
        with pytest.raises(Unavailable, match="LSTM only"):
            recurrence.toolkits.compiled_loop("gru", 5, 6)

    def test_left_out_and_missing_toolkits(self, monkeypatch):
        for name in ("aihwkit_lightning.nn", "aihwkit.nn", "aihwkit_lightning", "aihwkit"):
            monkeypatch.setitem(sys.modules, name, None)
        result = recurrence.measure(Setting("forward", **TINY), 1, left_out=[REFERENCE, recurrence.COMPILED])
        assert REFERENCE not in result.rounds.values
        assert set(result.rounds.missing) == set(TOOLKITS)
        assert all("cannot be imported" in why for why in result.rounds.missing.values())


def result_of(setting=None, **values):
    named = {"clean": CLEAN, "own": OWN, "off": OFF, "lightning": recurrence.LIGHTNING}
    return Result(
        setting or Setting("train"), Rounds("ms", {named[name]: value for name, value in values.items()})
    )


class TestTargets:
    @pytest.mark.parametrize(
        ("own", "at_least", "verdict"),
        [
            ([0.6, 0.7, 0.9], False, "reached"),
            ([0.6, 0.8, 0.9], False, "missed"),
            ([0.8] * 3, True, "reached"),
        ],
    )
    def test_the_median_decides(self, own, at_least, verdict):
        target = Target("what", 0.7, "train", OWN, CLEAN, at_least=at_least)
        ((what, where, limit, measured, said),) = recurrence.verdicts(
            [result_of(clean=[1.0] * 3, own=own)], [target]
        )
        assert (what, said) == ("what", verdict)
        assert where == Setting("train").title
        assert limit == ("at least 0.7" if at_least else "at most 0.7")
        assert measured.startswith(f"{sorted(own)[1]:.2f} (")

    def test_other_kinds_do_not_count_and_what_is_missing_is_said(self):
        target = Target("what", 4.5, "train", recurrence.LIGHTNING, OWN, at_least=True)
        others = [
            result_of(Setting("train", "gru"), own=[1.0], lightning=[9.0]),
            result_of(Setting("forward"), own=[1.0], lightning=[9.0]),
            result_of(Setting("train", device="cuda"), own=[1.0], lightning=[9.0]),
        ]
        assert recurrence.verdicts(others, [target]) == []
        rows = recurrence.verdicts([*others, result_of(own=[1.0], clean=[1.0])], [target])
        assert rows == [("what", "", "at least 4.5", "", "not measured")]

    def test_the_default_settings_have_every_target(self):
        for device in ("cpu", "cuda"):
            settings = recurrence.default_settings(device, cores=2)
            for target in recurrence.TARGETS:
                if target.device != device:
                    continue
                its = [s for s in settings if s.task == target.task and s.cell in target.cells]
                assert its, target.what
                for setting in its:
                    contenders = {CLEAN, OWN, *recurrence.makers(Setting(setting.task, setting.cell, **TINY))}
                    assert {target.contender, target.against} <= contenders


def options(*arguments):
    return recurrence.parse(arguments)


class TestCommandLine:
    def test_what_is_given_is_measured(self):
        settings = recurrence.settings_of(
            options("--tasks", "train", "--cells", "gru", "rnn", "--batch", "7"), 4
        )
        assert [(s.task, s.cell, s.batch, s.threads) for s in settings] == [
            ("train", "gru", 7, 2),
            ("train", "rnn", 7, 2),
        ]
        assert recurrence.settings_of(options("--rounds", "3"), 2) == recurrence.default_settings("cpu", 2)

    @pytest.mark.parametrize("axis", recurrence.SWEEPS)
    def test_a_sweep_changes_one_axis(self, axis):
        settings = recurrence.settings_of(options("--sweep", axis), cores=4)
        expected = {value for value in recurrence.SWEEPS[axis] if axis != "threads" or value <= 4}
        assert {getattr(setting, axis) for setting in settings} == expected
        assert {setting.task for setting in settings} == (
            {"networks"} if axis == "networks" else {"forward", "train"}
        )
        others = {tuple(getattr(s, name) for name in recurrence.SIZES if name != axis) for s in settings}
        assert len(others) == 1

    @pytest.mark.parametrize(
        "wrong", [["--rounds", "0"], ["--batch", "0"], ["--sweep", "time"], ["--tasks", "sleep"]]
    )
    def test_mistakes(self, wrong, capsys):
        with pytest.raises(SystemExit) as ended:
            options(*wrong)
        assert ended.value.code == 2

    def run(self, folder, *arguments):
        sizes = [f"--{name}={value}" for name, value in TINY.items()]
        return recurrence.main([*sizes, *arguments, "--output", str(folder), "--without", *SLOW])

    def test_table_figure_and_targets(self, tmp_path, capsys):
        results = self.run(tmp_path, "--tasks", "train", "--rounds", "2")
        said = capsys.readouterr().out
        assert "its products alone" in said
        assert "noise on against noise off" in said
        table = pd.read_csv(tmp_path / "recurrence.csv", comment="#")
        (result,) = results
        assert set(table["contender"]) == set(result.rounds.values)
        row = table[table["contender"] == OWN].iloc[0]
        assert row["median"] == pytest.approx(result.rounds.spread(OWN).median)
        assert row["ratio"] == pytest.approx(result.rounds.ratio(OWN, CLEAN).median)
        assert (row["batch"], row["units"], row["rounds"]) == (3, 6, 2)
        first_lines = (tmp_path / "recurrence.csv").read_text().splitlines()[:12]
        assert any(line.startswith(f"# torch: {torch.__version__}") for line in first_lines)
        assert "GFLOP/s" in (tmp_path / "recurrence.md").read_text()
        assert (tmp_path / "recurrence.png").read_bytes().startswith(b"\x89PNG")
        assert "GRU" not in (tmp_path / "recurrence.svg").read_text()

    def test_a_sweep(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setitem(recurrence.SWEEPS, "batch", (1, 2))
        sizes = [f"--{name}={value}" for name, value in TINY.items() if name != "batch"]
        recurrence.main(
            [*sizes, "--sweep", "batch", "--rounds", "1", "--output", str(tmp_path), "--without", *SLOW]
        )
        table = pd.read_csv(tmp_path / "recurrence_batch.csv", comment="#")
        assert sorted(table[table["contender"] == OWN]["batch"]) == [1, 1, 2, 2]
        assert (tmp_path / "recurrence_batch.png").stat().st_size > 1000
        assert "targets" not in capsys.readouterr().out

    @pytest.mark.slow
    @pytest.mark.skipif(
        not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc"
    )
    def test_memory_of_layers(self):
        """Gates of all steps, (T, N, 4 H), are kept by all that train, and by none that does not."""
        setting = Setting("memory", batch=64, steps=100, inputs=8, units=64, threads=1)
        gates = 100 * 64 * 4 * 64 * 4 / MEGABYTE
        result = recurrence.measure(setting, 10, left_out=SLOW)
        for contender in (CLEAN, OWN, REFERENCE):
            assert result.rounds.spread(contender).median > gates
        peak = functools.partial(recurrence.peak, replace(setting, task="forward"))
        forward = measuring.measure_peaks([OWN], peak, 1, recurrence.IMPORTED)
        assert forward.spread(OWN).median < result.rounds.spread(OWN).median - gates


def test_costs_of_hardware(monkeypatch, capsys):
    monkeypatch.setattr(hardware_costs, "STEPS", 4)
    monkeypatch.setattr(sys, "argv", ["hardware_costs.py", "--cell", "lstm", "--batch", "2", "--rounds", "1"])
    with threads(1):
        hardware_costs.main()
    said = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in said[2:]] == list(hardware_costs.works("lstm", 2))
    assert said[2].split("|")[3].strip() == "1.00"


@pytest.mark.filterwarnings("ignore:.*reference is not registered")
def test_costs_of_levers(monkeypatch, capsys):
    few = ("plain", "distillation, 1 teacher", "SAM")
    monkeypatch.setattr(levers, "LEVERS", {name: levers.LEVERS[name] for name in few})
    monkeypatch.setattr(sys, "argv", ["levers.py", "--batch", "2", "--rounds", "1"])
    with threads(1):
        levers.main()
    said = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in said[2:]] == list(few)


class TestGrowth:
    @pytest.mark.parametrize("task", ["train", "curve"])
    def test_the_bound_is_what_the_reference_loop_multiplies(self, task):
        """But for products of a zero state, which a loop may leave out, and a curve's classifier."""
        setting = Setting(task, **(TINY | {"steps": 30}), layers=3)
        counts = {}
        works = {"noisy": growth.noisy_curve if task == "curve" else growth.noisy_step, "bound": growth.bound}
        for name, make in works.items():
            with FlopCounterMode(display=False) as counter, use_implementation("reference"):
                make(setting)()
            counts[name] = counter.get_total_flops()
        assert counts["bound"] == pytest.approx(counts["noisy"], rel=0.08)
        assert growth.bound(replace(setting, networks=2)) is not None

    def test_a_run_goes_on_where_it_was(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(growth, "QUICK", {"batch": (1, 3), "layers": (1, 2), "networks": (1, 2)})
        monkeypatch.setattr(growth, "QUICK_BASE", Setting("train", **TINY))
        command = ["--quick", "--seconds", "0.001", "--threads", "1", "--output", str(tmp_path)]
        growth.main([*command, "--kinds", "train"])
        table = tmp_path / "growth_quick.csv"
        whole = table.read_text()
        frame = pd.read_csv(table, comment="#")
        assert set(frame["contender"]) == {growth.NOISY, growth.PRODUCTS}
        assert (frame["median"] > 0).all()
        assert len(frame) == 2 * 4  # the base stands for one place of every axis
        table.write_text("".join(whole.splitlines(keepends=True)[:-2]))  # broken off
        monkeypatch.setattr(growth, "measure_times", counted := Counted(growth.measure_times))
        written = growth.main([*command, "--kinds", "train", "curve"])
        assert counted.calls == 1 + 3  # what was lost, and the curves
        assert [path.name for path in written] == [
            "growth_quick.csv",
            "growth_quick_step.png",
            "growth_quick_curve.png",
        ]
        assert table.read_text().startswith("".join(whole.splitlines(keepends=True)[:-2]))
        table.write_text(whole.replace("# torch: ", "# torch: another "))
        with pytest.raises(SystemExit, match="another --output"):
            growth.main(command)


class Counted:
    """Calls a function and counts how often."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments, **keywords):
        self.calls += 1
        return self.function(*arguments, **keywords)


class TestOnGpu:
    """The script for a machine with a GPU, as far as one without can tell; its programs run in the interpreter."""

    STEPS = ("machine", "recurrence", "tests", "networks", "training", "bfloat16")

    def run(self, folder, *arguments, **environment):
        script = BENCHMARKS / "gpu.sh"
        environment = os.environ | {"OUT": str(folder), "PYTHON": sys.executable} | environment
        return subprocess.run(
            ["bash", str(script), *arguments], env=environment, capture_output=True, text=True, timeout=900
        )

    def summary(self, folder):
        return json.loads((folder / "summary.json").read_text())

    def test_no_time_left(self, tmp_path):
        """No step is begun, each is told of, and there is a page."""
        done = self.run(tmp_path, "--dry-run", BUDGET="0")
        assert done.returncode == 1, done.stderr
        steps = self.summary(tmp_path)["steps"]
        assert [(step["name"], step["status"]) for step in steps] == [(name, 124) for name in self.STEPS]
        page = (tmp_path / "summary.md").read_text()
        assert "no time means anything" in page
        assert page.count("not begun: no time is left") == len(self.STEPS)
        assert len(list(tmp_path.iterdir())) == len(self.STEPS) + 2

    def test_an_argument_that_it_does_not_know(self, tmp_path):
        done = self.run(tmp_path, "--quick")
        assert done.returncode == 2
        assert "benchmarks/gpu.sh --dry-run" in done.stderr

    @pytest.mark.slow
    def test_dry_run(self, tmp_path):
        pytest.importorskip("triton")
        done = self.run(tmp_path, "--dry-run")
        assert done.returncode == 0, done.stdout + (tmp_path / "summary.md").read_text()
        summary = self.summary(tmp_path)
        assert [(step["name"], step["status"]) for step in summary["steps"]] == [
            (name, 0) for name in self.STEPS
        ]
        assert summary["machine"]["torch"] == torch.__version__
        assert all(step["tables"] for step in summary["steps"] if step["name"] != "tests")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    @pytest.mark.parametrize("program", ["gpu_machine", "gpu_recurrence", "gpu_networks"])
    def test_without_a_gpu_nothing_is_measured(self, program, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(sys, "argv", [program, "--output", str(tmp_path / "tables.json")])
        assert importlib.import_module(program).main() == gpu_results.NOT_HERE
        assert "no GPU here" in capsys.readouterr().out
        assert not list(tmp_path.iterdir())


class TestResults:
    @pytest.mark.parametrize(("error", "wrong"), [(0.01, False), (0.02, True), (NAN, True)])
    def test_an_error_beyond_what_is_allowed_is_told(self, error, wrong, tmp_path, capsys):
        results = gpu_results.Results(tmp_path / "tables.json")
        results.add_errors("title", [("other", 0.0, 0.015), ("what", error, 0.015)])
        assert results.wrong == wrong
        assert ("WRONG" in capsys.readouterr().out) == wrong
        (table,) = json.loads((tmp_path / "tables.json").read_text())["tables"]
        assert table["title"] == "title"
        assert [row[0] for row in table["rows"]] == ["other", "what"]

    def test_who_was_not_measured_is_in_the_table(self, tmp_path):
        results = gpu_results.Results(tmp_path / "tables.json")
        results.add_rounds("times", Rounds("ms", {"a": [2.0], "b": [3.0]}, {"c": "no cuDNN"}), "a")
        (table,) = results.tables
        assert table["rows"][1] == ["b", "3.000 (3.000 to 3.000)", "1.50 (1.50 to 1.50)"]
        assert table["rows"][2] == ["c", "not measured: no cuDNN", ""]


def test_an_evaluation_in_aihwkit_wants_aihwkit(monkeypatch):
    monkeypatch.setitem(sys.modules, "aihwkit.nn", None)
    with pytest.raises(Unavailable, match="pip install aihwkit"):
        evaluation_in_aihwkit.works(2, 3)


@pytest.mark.slow
def test_an_evaluation_in_aihwkit_draws_a_chip_for_each_batch(monkeypatch):
    import_aihwkit()
    monkeypatch.setattr(evaluation_in_aihwkit, "STEPS", 4)
    best = hardware_costs.measure(evaluation_in_aihwkit.works(2, 3), rounds=1)
    assert [name.partition(",")[0] for name in best] == ["here", "aihwkit"] * 2
    assert all(0 < seconds < float("inf") for seconds in best.values())
