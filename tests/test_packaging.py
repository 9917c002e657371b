"""The project's own files for installation and for the container: they must agree with each other."""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def read_lock(name: str) -> dict[str, Requirement]:
    """Return the pins of a lock by canonical name; every line must be one exact version from the index."""
    pins: dict[str, Requirement] = {}
    for line in (ROOT / name).read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            requirement = Requirement(line)
            assert requirement.url is None, line
            assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), line
            assert canonicalize_name(requirement.name) not in pins, f"{name} pins {requirement.name} twice"
            pins[canonicalize_name(requirement.name)] = requirement
    return pins


RUNTIME = read_lock("requirements.txt")
DEVELOPMENT = read_lock("requirements-dev.txt")


def version(pin: Requirement) -> str:
    return str(pin.specifier).removeprefix("==")


@pytest.mark.parametrize(
    ("lock", "declared"),
    [
        pytest.param(RUNTIME, PYPROJECT["project"]["dependencies"], id="runtime"),
        pytest.param(DEVELOPMENT, PYPROJECT["project"]["optional-dependencies"]["dev"], id="dev"),
    ],
)
def test_lock_fits_what_the_project_declares(lock: dict[str, Requirement], declared: list[str]) -> None:
    for text in declared:
        requirement = Requirement(text)
        pin = lock[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version(pin), prereleases=True), (
            f"{pin} does not satisfy {text}"
        )


def test_development_lock_adds_to_the_runtime_lock_without_changing_it() -> None:
    """It may want a package on more systems than the runtime does, in the same version."""
    assert {name: version(DEVELOPMENT[name]) for name in RUNTIME} == {
        name: version(pin) for name, pin in RUNTIME.items()
    }
    for name, pin in RUNTIME.items():
        assert DEVELOPMENT[name].marker in (pin.marker, None)


def test_lock_is_complete() -> None:
    """Follow every dependency through the metadata of the installed packages: pip chooses none."""
    waiting = [(Requirement(text), "pyproject.toml") for text in PYPROJECT["project"]["dependencies"]]
    seen = set()
    while waiting:
        requirement, wanted_by = waiting.pop()
        name = canonicalize_name(requirement.name)
        assert name in RUNTIME, f"{name}, wanted by {wanted_by}, is not in requirements.txt: run `make lock`"
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in importlib.metadata.requires(name) or ():
            wanted = Requirement(text)
            extras = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
            if wanted.marker is None or any(wanted.marker.evaluate(extra) for extra in extras):
                waiting.append((wanted, name))


def dockerfile_instructions() -> list[list[str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def test_dockerfile_copies_only_what_exists_and_is_sent_to_the_builder() -> None:
    sent = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for instruction, rest in dockerfile_instructions()
        if instruction == "COPY"
        for source in shlex.split(rest)[:-1]
    }
    assert copied == sent
    assert [source for source in sorted(copied) if not (ROOT / source).exists()] == []


def test_dockerfile_installs_the_dependencies_before_it_copies_the_sources() -> None:
    steps = [" ".join(instruction) for instruction in dockerfile_instructions()]
    dependencies = next(i for i, step in enumerate(steps) if "-r /tmp/requirements.txt" in step)
    sources = next(i for i, step in enumerate(steps) if step.startswith("COPY asr_dni"))
    assert dependencies < sources


def test_container_check_names_configurations_that_exist() -> None:
    named = re.findall(r"conf/\S+\.yaml", (ROOT / "scripts" / "container_check.sh").read_text())
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_container_has_the_configurations_where_they_are_looked_for() -> None:
    """As a package's and, for those who want to read or change them, in the working folder."""
    copies = [rest.split() for instruction, rest in dockerfile_instructions() if instruction == "COPY"]
    assert ["conf", "/tmp/asr-dni/conf"] in copies
    assert ["conf", "/workspace/conf"] in copies
    assert any("setup.py" in sources for sources in copies)


def test_console_command_is_installed() -> None:
    (command,) = importlib.metadata.distribution("asr-dni").entry_points.select(group="console_scripts")
    assert command.name == "asr-dni"
    assert callable(command.load())


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's commands, in which the project is installed; dependencies are those of here."""
    folder = tmp_path_factory.mktemp(request.param)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if name.startswith(("asr_dni/", "conf/")) or "/" not in name:
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "checkout" / name)
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # A folder that a .pth file names is searched, but its own .pth files, the checkout's among them, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    sources = [str(folder / "checkout")]
    if request.param == "wheel":
        subprocess.run([*pip, "wheel", *offline, "--wheel-dir", str(folder), *sources], check=True)
        shutil.rmtree(folder / "checkout")
        sources = [str(path) for path in folder.glob("*.whl")]
    else:
        sources = ["--editable", *sources]
    subprocess.run(
        [*pip, "--python", str(environment / "bin" / "python"), "install", *offline, *sources], check=True
    )
    return environment / "bin"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_installed_configurations_are_found_by_name_from_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "WANDB_MODE": "disabled"}

    def run(*command: str, program: str = "asr-dni") -> subprocess.CompletedProcess[str]:
        command = (str(installed / program), *command)
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    imported = run("-c", "import asr_dni; print(asr_dni.__file__)", program="python").stdout
    assert Path(imported.strip()).is_relative_to(installed.parents[1])
    listed = run("conf", "list").stdout
    names = {
        path.relative_to(ROOT / "conf").with_suffix("").as_posix() for path in (ROOT / "conf").rglob("*.yaml")
    }
    assert {line.split()[0] for line in listed.splitlines()} == names
    planned = run("study", "plan", "digits", "--measure=false")
    assert planned.returncode == 0, planned.stderr
    step = ["--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--noise_curve.validation_draws=1"]
    fitted = run("fit", "--config", "conf/experiment/digits_lstm_dni.yaml", *step)
    assert fitted.returncode == 0, fitted.stderr
    assert run("conf", "copy", "digits_lstm_dni").returncode == 0
    assert (tmp_path / "conf" / "experiment" / "digits_lstm_dni.yaml").is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("release", [(3, 10), (3, 15), (2, 7)])
def test_make_says_which_python_it_needs(tmp_path: Path, release: tuple[int, int]) -> None:
    python = tmp_path / "python-of-another-age"
    pretend = f"import sys; sys.version_info = {(*release, 0, 'final', 0)}; exec(sys.argv.pop(1))"
    # Stands in for `python -c SCRIPT`: runs the script in an interpreter that says it is of another release.
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(pretend)} "$2"\n')
    python.chmod(0o755)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    result = subprocess.run(
        ["make", "demo", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "asr-dni needs Python 3.11" in result.stderr
    assert f"is Python {release[0]}.{release[1]}" in result.stderr
    assert not (tmp_path / "venv").exists()
