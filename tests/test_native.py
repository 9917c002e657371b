"""Compiling, caching and loading the C kernels, and doing without them."""

import logging
import multiprocessing
import os
import platform
import shutil
import stat

import pytest
import torch

from asr_dni import compiled
from asr_dni.nn import NoisyGRU, NoisyLinear, NoisyLSTM, NoisyRNN, native, use_implementation
from asr_dni.nn.operations import GaussianNoise, draw_plain
from asr_dni.noise import SITES, Noise
from asr_dni.philox import normal

needs_compiler = pytest.mark.skipif(
    native.library() is None, reason=f"no compiled kernels here: {native.status()}"
)
READY = getattr(native.library(), "_name", None)  # ctypes' documented name for the file of a library


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """As in a new process with an empty cache."""
    monkeypatch.setenv("ASR_DNI_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ASR_DNI_NATIVE", raising=False)
    native.forget()
    yield tmp_path / "cache"
    monkeypatch.undo()
    native.forget()


def script(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


class CopyingCompiler:
    """Stands in for a C compiler where it doesn't matter what is compiled: copies the library that is there already."""

    def __init__(self, folder, ready):
        self.path, self.log = folder / "copying-cc", folder / "calls"
        self.log.touch()
        copy = f"""for word; do
            [ "$before" = -o ] && cp '{ready}' "$word" && echo "$word" >> '{self.log}'
            before=$word
        done
        exit 0"""
        script(self.path, copy)

    @property
    def libraries(self):
        """How many it has made."""
        return sum(line.endswith(".so") for line in self.log.read_text().splitlines())


@pytest.fixture
def compiler(fresh, tmp_path, monkeypatch):
    made = CopyingCompiler(tmp_path, READY)
    monkeypatch.setenv("CC", str(made.path))
    return made


def run(layer, x):
    with layer.under(Noise(0.5, sites=SITES, draw=0)):
        outputs, _ = layer(x)
        outputs.sum().backward()
    return outputs.detach(), layer.weight_hh_l0.grad.clone()


SINGLE = torch.zeros(0)


def noise(std, key):
    return GaussianNoise(torch.tensor([std]), (key,))


@needs_compiler
class TestDraw:
    @pytest.mark.parametrize("groups", [1, 2, 3, 4])
    @pytest.mark.parametrize("width", [1, 3, 16, 17, 63, 64, 65, 130])
    def test_gives_the_plain_generators_numbers(self, groups, width):
        ids, key = torch.tensor([0, 5, -1, 2**40 + 3]), (0xFFFFFFFF, 0x12345678)
        got = native.draw_gaussian(noise(2.0, key), [ids], 2**32 - 3, 3, groups, width, SINGLE)[0]
        expected = 2 * normal(key, ids, torch.arange(2**32 - 3, 2**32), groups, width)
        assert got.shape == expected.shape
        # The words are the same; the transform is single precision on both sides.
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)

    def test_many(self):
        """Rare words too, such as those at the ends of the logarithm and of the quadrants."""
        ids, key = torch.arange(500), (3, 4)
        got = native.draw_gaussian(noise(1.0, key), [ids], 0, 4, 4, 64, SINGLE)[0]
        expected = normal(key, ids, torch.arange(4), 4, 64)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)

    def test_does_not_depend_on_the_number_of_threads(self):
        ids, threads = torch.arange(500), torch.get_num_threads()
        results = []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                results.append(native.draw_gaussian(noise(1.0, (3, 4)), [ids], 0, 4, 4, 17, SINGLE))
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])

    def test_empty(self):
        for rows, steps, width in ((0, 4, 17), (3, 0, 17), (3, 4, 0)):
            what = noise(1.0, (3, 4)), [torch.arange(rows)], 0, steps, 4, width, SINGLE
            assert native.draw_gaussian(*what).shape == draw_plain(*what).shape


@pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler, and so no kernels"
)
def test_there_are_kernels_where_there_is_a_compiler():
    """The other tests of the kernels would be left out without them."""
    assert native.library() is not None, native.status()


@needs_compiler
class TestCompiling:
    def test_into_a_fresh_folder_and_once(self, fresh, compiler):
        for _ in range(2):
            assert native.library() is not None
            (built,) = fresh.iterdir()
            assert built.suffix == ".so"
            assert native.status() == f"compiled (compiled by {compiler.path})"
            assert compiler.libraries == 1
            native.forget()

    @pytest.mark.parametrize("damage", ["empty", "cut", "something else", "one bit"])
    def test_a_damaged_library_is_made_anew(self, damage, fresh, compiler):
        assert native.library() is not None
        (built,) = fresh.iterdir()
        whole = built.read_bytes()
        middle = len(whole) // 2
        one_bit = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        built.unlink()  # the one that is loaded stays mapped
        built.write_bytes(
            {"empty": b"", "cut": whole[:-1000], "something else": b"x" * 999, "one bit": one_bit}[damage]
        )
        native.forget()
        assert native.library() is not None
        assert compiler.libraries == 2
        assert built.read_bytes() == whole

    def test_a_folder_that_cannot_be_written(self, fresh, compiler):
        fresh.write_text("a file where the folder should be")
        assert native.library() is not None
        layer, x = NoisyLSTM(3, 9), torch.randn(5, 4, 3)
        with use_implementation("fused"):
            run(layer, x)

    def test_two_processes_at_once(self, fresh, compiler):
        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            statuses = pool.map(_compile_afresh, range(2))
        assert all(status.startswith("compiled") for status in statuses)
        assert len(list(fresh.iterdir())) == 1
        made = compiler.libraries
        native.forget()
        assert native.library() is not None
        assert compiler.libraries == made  # it is whole

    @pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="switches of an x86 compiler")
    @pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx512f -mno-avx2 -mno-avx -mno-fma"])
    def test_for_processors_with_smaller_vectors(self, without, fresh, tmp_path, monkeypatch):
        quick = 'for word; do shift; [ "$word" = -O3 ] && word=-O1; set -- "$@" "$word"; done'
        compiler = script(tmp_path / "quick-cc", f'{quick}\nexec gcc {without} "$@"')
        monkeypatch.setenv("CC", compiler)
        for layer in (NoisyLSTM(3, 21), NoisyGRU(3, 21), NoisyRNN(3, 21)):
            x, results = torch.randn(4, 17, 3), []
            for implementation in ("reference", "fused"):
                layer.zero_grad()
                with use_implementation(implementation):
                    results.append(run(layer, x))
            for mine, its in zip(*results, strict=True):
                torch.testing.assert_close(mine, its, atol=2e-5, rtol=2e-4)
        assert native.status() == f"compiled (compiled by {compiler})"


def _compile_afresh(_):
    native.forget()
    return native.status()


class TestWithout:
    @pytest.mark.parametrize(
        "way", ["switched off", "no compiler", "broken", "missing", "makes nothing", "makes garbage"]
    )
    def test_the_reference_gives_the_same_and_says_so_once(self, way, fresh, tmp_path, monkeypatch, caplog):
        layer, x = NoisyLSTM(3, 9), torch.randn(5, 4, 3)
        with use_implementation("reference"):
            expected = run(layer, x)
        layer.zero_grad()
        copy = 'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo garbage > "$2"; shift; done'
        setting, reason = {
            "switched off": (("ASR_DNI_NATIVE", "0"), "switched off by ASR_DNI_NATIVE=0"),
            "no compiler": (("PATH", str(tmp_path)), "no C compiler"),
            "broken": (
                ("CC", script(tmp_path / "broken-cc", 'echo "cc: out of luck" >&2; exit 1')),
                "out of luck",
            ),
            "missing": (("CC", str(tmp_path / "absent")), "absent"),
            "makes nothing": (("CC", script(tmp_path / "empty-cc", "exit 0")), "failed"),
            "makes garbage": (("CC", script(tmp_path / "garbage-cc", copy)), "failed"),
        }[way]
        if way == "no compiler":
            monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv(*setting)
        with caplog.at_level(logging.WARNING):
            got = run(layer, x)
            layer.zero_grad()
            run(layer, x)
            linear = NoisyLinear(2, 2)
            with linear.under(Noise(1.0)):
                linear(torch.zeros(1, 2))
        for mine, its in zip(got, expected, strict=True):
            assert torch.equal(mine, its)
        warnings = [record for record in caplog.records if record.name == compiled.__name__]
        assert len(warnings) == 1
        assert reason in warnings[0].getMessage()
        assert native.status().startswith("reference (")
        with use_implementation("fused"), pytest.raises(RuntimeError, match="asked for, but cannot run"):
            layer(x)

    def test_a_setting_that_is_no_command_line(self, fresh, monkeypatch):
        monkeypatch.setenv("CC", 'gcc "unclosed')
        assert native.library() is None

    @needs_compiler
    def test_a_user_without_a_home(self, compiler, monkeypatch):
        for name in ("ASR_DNI_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        assert native.library() is not None
