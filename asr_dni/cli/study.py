"""``asr-dni study``: a whole matrix of trainings, planned, run, surveyed and reported."""

import math
import sys
import threading
import time
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from asr_dni.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from asr_dni.study.engine import StudyRun, Survey
    from asr_dni.study.ledger import Damage
    from asr_dni.study.plan import Population
    from asr_dni.study.settings import Study

_USAGE = """\
usage: asr-dni study COMMAND ...

Train and evaluate a whole matrix: sigma_train x sigma_infer, for every cell, size, schedule, kind of noise and seed.

commands:
  run FILE     do what is missing, then report; may be interrupted and started again at any time
  plan FILE    print what would be done, what is done already, and an estimate of the time
  status DIR   print how far a study is, while it runs too
  report DIR   write findings, figures and tables of what there is

examples:
  asr-dni study run quick
  asr-dni study plan paper --data.source.path FOLDER
  asr-dni study run paper --data.source.path FOLDER --seeds 3 --units 32,64 --name small
  asr-dni study run paper --address auto
  asr-dni study status runs/study/paper

FILE is YAML, or a name of "asr-dni conf list study/". "asr-dni study run --help" lists its settings, all of which may
be given on the command line too. Results go to runs/study/NAME."""

_SHOWN = 8
"""Populations that are shown while they are trained."""
_LISTED = 100
"""Populations that a plan lists one by one."""
_MEASURING_SECONDS = 20.0
"""How long a plan measures; at least one shape is."""


def study(arguments: Sequence[str]) -> None:
    """Run ``asr-dni study``.

    Raises:
        UserError: the command, a setting or the data are not valid.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_USAGE)
        sys.exit(0 if arguments else 2)
    name, *rest = arguments
    if name not in _COMMANDS:
        raise UserError(f"there is no study command {name!r}: give one of {', '.join(_COMMANDS)}")
    _COMMANDS[name](rest)


# ---------------------------------------------------------------------- reading the command line


def _with_class_of_data(arguments: Sequence[str]) -> list[str]:
    """Let the data's class be given by its name alone."""
    given: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if not equals and given and given[-1] == "--data_class":
            option, value = given[-1], argument
        if option == "--data_class" and value and not value.startswith("--"):
            path = value if "." in value else f"asr_dni.data.{value}"
            if equals:
                argument = f"--data={path}"
            else:
                given[-1], argument = "--data", path
        given.append(argument)
    return given


def _read(command: str, arguments: Sequence[str]) -> "tuple[Study, Any]":
    from asr_dni.cli.lists import with_brackets
    from asr_dni.configuration import expand_layers
    from asr_dni.named_classes import ALLOW_HELP, ALLOW_OPTION
    from asr_dni.study.engine import EngineSettings
    from asr_dni.study.settings import file_arguments, parse_study, study_parser

    parser = study_parser(f"asr-dni study {command}")
    parser.usage = f"asr-dni study {command} FILE [--KEY VALUE ...]"
    parser.description = {
        "run": "Train and evaluate what is missing of a study, then report.",
        "plan": "Print what a study would do, what is done already, and an estimate of the time.",
    }[command]
    parser.add_argument(
        "file",
        type=Path,
        help="the study: a YAML file, or the name of one that comes with the project, such as quick",
    )
    parser.add_argument(
        "--output", type=Path | None, default=None, help="folder of the study; by default runs/study/NAME"
    )
    parser.add_class_arguments(EngineSettings, as_group=False)
    if command == "run":
        parser.add_argument("--dry_run", type=bool, default=False, help="only print what would be done")
        parser.add_argument("--report", type=bool, default=True, help="write findings and figures at the end")
    parser.add_argument(
        "--measure",
        type=bool,
        default=True,
        help="whether a plan times a few steps of every shape on this machine, for its estimate",
    )
    arguments = list(arguments)
    parser.epilog = f"{ALLOW_OPTION} MODULE: {ALLOW_HELP}."
    if "--help" in arguments or "-h" in arguments:
        parser.print_help()
        sys.exit(0)
    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"asr-dni study {command} needs a study's file or name first, such as quick")
    # --dry_run alone means yes.
    for flag in ("--dry_run",):
        for place in [place for place, argument in enumerate(arguments) if argument == flag]:
            following = arguments[place + 1] if place + 1 < len(arguments) else "--"
            if following.startswith("--"):
                arguments[place] = f"{flag}=true"
    file = arguments.pop(0)
    given = with_brackets(_with_class_of_data(arguments), parser)
    return parse_study([*file_arguments(file), file, *expand_layers(given, folder="study")], parser)


def _prepare(study: "Study", parsed: Any) -> "StudyRun":
    from asr_dni.study.engine import EngineSettings, StudyRun
    from asr_dni.study.folder import StudyFolder

    output = parsed.output if parsed.output is not None else Path("runs") / "study" / study.settings.name
    if any(part.exists() and not part.is_dir() for part in (output, *output.parents)):
        raise UserError(f"output {output}: a file is in the way; give a folder")
    settings = EngineSettings(**{field.name: parsed[field.name] for field in fields(EngineSettings)})
    return StudyRun(study, StudyFolder(output), settings)


# ---------------------------------------------------------------------- plan


def _plan(arguments: Sequence[str]) -> None:
    study, parsed = _read("plan", arguments)
    _print_plan(_prepare(study, parsed), parsed.measure)


def _workers(run: "StudyRun") -> tuple[int, bool]:
    """Return how many workers a start would have, and whether they have GPUs, without starting any."""
    import torch

    from asr_dni.study.ray_engine import processors

    settings = run.settings
    gpus = torch.cuda.device_count() if settings.address is None else 0
    on_gpu = settings.gpus_per_worker is not None and settings.gpus_per_worker > 0
    on_gpu = on_gpu or (settings.gpus_per_worker is None and gpus > 0)
    if settings.workers is not None:
        return max(1, settings.workers), on_gpu
    if on_gpu and gpus:
        return max(1, int(gpus / (settings.gpus_per_worker or 1.0))), True
    return max(1, processors() // settings.cpus_per_worker), on_gpu


def _print_plan(run: "StudyRun", measure: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    run.prepare()
    workers, on_gpu = _workers(run)
    _tell_damages(run.damages(), console)
    populations = run.plan(workers, on_gpu)
    done = run.folder.ledger.members()
    results = frozenset().union(*(member.results for member in run.members))
    missing = run.missing()
    settings, size = run.study.settings, run.size
    assert size is not None
    seconds = _estimate(run, populations, "cuda" if on_gpu else "cpu") if measure and populations else {}
    table = Table("population", "members", "sigma_train", "seeds", "state", title=f"study {settings.name}")
    if seconds:
        table.add_column("estimate", justify="right")
    for population in populations[:_LISTED]:
        members = population.members
        sigmas = sorted({member.sigma_train for member in members})
        seeds = sorted({member.seed for member in members})
        progress = run.folder.progress(population.id)
        state = (
            "new"
            if progress.epochs == 0 or progress.state == "done"
            else f"epoch {progress.epoch}/{progress.epochs}"
        )
        row = [_title(population), str(len(members)), _numbers(sigmas), _numbers(seeds), state]
        table.add_row(*row, *([duration(seconds[population.id])] if seconds else []))
    console.print(table)
    if len(populations) > _LISTED:
        console.print(f"and {len(populations) - _LISTED} more populations", highlight=False)
    many = "population" if len(populations) == 1 else "populations"
    console.print(
        f"{len(run.members)} members ({len(run.members) - len(missing)} done), {len(populations)} {many} for"
        f" {workers} {'worker' if workers == 1 else 'workers'}; {len(results & done)} of {len(results)} results are in"
        f" {run.folder.ledger.path}",
        soft_wrap=True,
        highlight=False,
    )
    console.print(
        f"{size.n_train} training clips in batches of {size.batch_size}, {size.n_frames} frames of"
        f" {size.n_features} features; {settings.epochs} epochs; evaluated on {size.n_evaluated} clips of the"
        f" {settings.evaluation.split} split",
        soft_wrap=True,
        highlight=False,
    )
    if seconds:
        total = sum(seconds.values())
        longest = max(total / workers, max(seconds.values()))
        where = "the GPU" if on_gpu else "one thread here"
        console.print(
            f"estimated, as measured on {where} now: {duration(total)} with one worker, {duration(longest)} with"
            f" {workers} (features, start and report not counted)",
            soft_wrap=True,
            highlight=False,
        )


def _estimate(run: "StudyRun", populations: "Sequence[Population]", device: str) -> dict[str, float]:
    """Return the seconds that populations will take, from a few steps of every shape, as far as there is time."""
    import torch

    from asr_dni.evaluation import count_passes
    from asr_dni.study.engine import fraction_done
    from asr_dni.study.plan import operations_per_clip
    from asr_dni.study.work import measure_speed

    assert run.size is not None
    threads = torch.get_num_threads()
    torch.set_num_threads(run.settings.cpus_per_worker)
    speeds: dict[Any, Any] = {}
    estimates = {}
    done = run.folder.ledger.members()
    began = time.monotonic()
    try:
        for population in populations:
            member = population.members[0]
            members = min(len(population.members), 64 if device == "cuda" else 4)
            key = (member.network, members)
            if key not in speeds and (not speeds or time.monotonic() - began < _MEASURING_SECONDS):
                speeds[key] = measure_speed(run.study, member, run.size, members, device)
            if key in speeds:
                speed, factor = speeds[key], 1.0
            else:  # as fast as the last one, by operations
                known = next(reversed(speeds))
                speed = speeds[known]
                factor = operations_per_clip(member.network, run.size) / operations_per_clip(
                    known[0], run.size
                )
            steps = run.size.n_batches * run.study.settings.epochs
            draws = run.study.settings.evaluation.draws
            passes = sum(count_passes(evaluation.sigmas, draws) for evaluation in member.evaluations)
            batches = run.size.n_evaluated / run.size.batch_size
            left = 1 - fraction_done(population, run.folder.progress(population.id), done)
            each = speed.training * steps + speed.evaluation * passes * batches
            estimates[population.id] = len(population.members) * each * factor * left
    finally:
        torch.set_num_threads(threads)
    return estimates


def _title(population: "Population") -> str:
    first = population.members[0]
    layers = f"{first.network.layers} x " if first.network.layers > 1 else ""
    return f"{first.cell} {layers}{first.network.units}, {first.noise.scale}"


def _numbers(values: Sequence[float], longest: int = 28) -> str:
    text = " ".join(f"{value:g}" for value in values)
    return text if len(text) <= longest else f"{values[0]:g} ... {values[-1]:g} ({len(values)})"


def duration(seconds: float) -> str:
    """Return a time as people say it: 40 s, 12 min, 3 h 05 min, 2 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


# ---------------------------------------------------------------------- run


def _run(arguments: Sequence[str]) -> None:
    study, parsed = _read("run", arguments)
    run = _prepare(study, parsed)
    if parsed.dry_run:
        _print_plan(run, parsed.measure)
        return
    from rich.console import Console

    console = Console()
    errors = Console(stderr=True)
    began = time.monotonic()
    run.prepare()
    for line in run.repair():
        errors.print(line, soft_wrap=True, highlight=False)
    missing = run.missing()
    console.print(
        f"study {study.settings.name}: {len(run.members)} members, {len(run.members) - len(missing)} done;"
        f" results go to {run.folder.path}",
        soft_wrap=True,
        highlight=False,
    )
    if missing:
        run.folder.record(study, run.data)  # before any worker is started
        try:
            _work(run, errors)
        except KeyboardInterrupt:
            survey = run.survey()
            raise KeyboardInterrupt(
                f"{survey.done} of {survey.results} results are there; started again it goes on from where it was"
            ) from None
        run.folder.ledger.compact(at_least=200)
    if run.failures:
        for failure in run.failures:
            folder = run.folder.path / "populations" / failure.population.id
            errors.print(
                f"{failure.population.title}: given up: {failure.message} (see {folder})",
                soft_wrap=True,
                highlight=False,
            )
    still = len(run.missing())
    if parsed.report and run.folder.ledger.members():
        _write_report(run.folder.path, console)
    console.print(f"done in {duration(time.monotonic() - began)}", highlight=False)
    if still:
        print(
            f"asr-dni: {still} of {len(run.members)} members are missing; the same command tries them again",
            file=sys.stderr,
        )
        sys.exit(1)


def _work(run: "StudyRun", console: "Console") -> None:
    from asr_dni.study.engine import InProcess, Pool
    from asr_dni.study.ray_engine import RayPool

    pool: Pool
    if run.settings.workers == 0:
        import torch

        on_gpu = torch.cuda.is_available() and run.settings.gpus_per_worker != 0
        pool = InProcess(run.study, run.folder, "cuda" if on_gpu else "cpu")
    else:
        pool = RayPool(run.settings)
        on_gpu = pool.on_gpu
    with Display(run, console) as display:
        run.run(pool, on_gpu, display.say)


class Display:
    """Shows how far a study is, from a thread of its own: while it is trained the main one is busy.

    On a terminal it is drawn again every second; elsewhere a line is written for what happens, and one a minute.

    Args:
        run: the study.
        console: where it is shown.
        every: seconds between lines where there is no terminal.
    """

    def __init__(self, run: "StudyRun", console: "Console", every: float = 60.0) -> None:
        self._run, self._console, self._every = run, console, every
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._show, daemon=True, name="display of the study")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=10)

    def say(self, text: str) -> None:
        """Write a line above what is drawn."""
        self._console.print(text, soft_wrap=True, highlight=False)

    def _show(self) -> None:
        if self._console.is_terminal:
            from rich.live import Live

            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                while not self._ended.wait(1.0):
                    survey = self._survey()
                    if survey is not None:
                        live.update(draw_survey(survey, time.monotonic() - self._began), refresh=True)
            return
        while not self._ended.wait(self._every):
            survey = self._survey()
            if survey is not None:
                self.say(describe_survey(survey))

    def _survey(self) -> "Survey | None":
        try:
            return self._run.survey()
        except (OSError, UserError):  # a file that is being replaced; the next second shows it
            return None


def _percent(fraction: float) -> str:
    """Return a part in percent, which is 100 only where nothing is left."""
    return f"{math.floor(100 * fraction + 1e-9)} %"


def describe_survey(survey: "Survey") -> str:
    """Return one line that says how far a study is."""
    if survey.results and survey.done == survey.results:
        return f"all {survey.results} results are there"
    left = "" if survey.seconds_left is None else f", {duration(survey.seconds_left)} left"
    retries = f", begun again {survey.retries} times" if survey.retries else ""
    return (
        f"{survey.done} of {survey.results} results, {_percent(survey.fraction)} of the work;"
        f" {len(survey.running)} populations are trained, {survey.waiting} wait{left}{retries}"
    )


def draw_survey(survey: "Survey", elapsed: float | None = None) -> "RenderableType":
    """Return a picture of how far a study is, for the terminal."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 2))
    left = "..." if survey.seconds_left is None else duration(survey.seconds_left)
    head.add_row(
        ProgressBar(total=1.0, completed=survey.fraction, width=40),
        _percent(survey.fraction),
        f"{survey.done}/{survey.results} results",
        *([f"{duration(elapsed)} gone"] if elapsed is not None else []),
        f"{left} left",
    )
    body = Table.grid(padding=(0, 2))
    for population, progress in list(survey.running)[:_SHOWN]:
        body.add_row(
            population.title,
            ProgressBar(total=1.0, completed=progress.fraction, width=20),
            f"epoch {progress.epoch}/{progress.epochs}" if progress.state == "training" else progress.state,
            progress.device,
        )
    rest = []
    if len(survey.running) > _SHOWN:
        rest.append(f"{len(survey.running) - _SHOWN} more are trained")
    if survey.waiting:
        rest.append(f"{survey.waiting} populations wait")
    if survey.retries:
        rest.append(f"begun again {survey.retries} times")
    if survey.failures:
        rest.append(f"{len(survey.failures)} given up")
    return Group(head, body, Text("; ".join(rest)))


# ---------------------------------------------------------------------- status and report


def _folder_of(command: str, arguments: Sequence[str]) -> Path:
    from jsonargparse import ArgumentParser

    from asr_dni.configuration import explain

    parser = ArgumentParser(prog=f"asr-dni study {command}", exit_on_error=False, allow_abbrev=False)
    parser.description = {
        "status": "Print how far a study is, while it runs too.",
        "report": "Write findings, figures and tables of the results that there are.",
    }[command]
    parser.add_argument("folder", type=Path, help="the study's, such as runs/study/quick")
    try:
        path: Path = parser.parse_args(list(arguments)).folder
    except ArgumentError as error:
        raise UserError(f"{explain(error)} (give a study's folder, such as runs/study/quick)") from error
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; give a study's, such as runs/study/quick")
    return path


def _status(arguments: Sequence[str]) -> None:
    path = _folder_of("status", arguments)
    from rich.console import Console

    from asr_dni.study.engine import survey
    from asr_dni.study.folder import StudyFolder
    from asr_dni.study.plan import Population, plan_members
    from asr_dni.study.work import data_size

    folder = StudyFolder(path)
    study = folder.read_study()
    data = study.make_data(0)
    members = plan_members(study, data)
    by_training = {member.training: member for member in members}
    populations = [
        Population(tuple(by_training[training] for training in trainings))
        for trainings in folder.recorded_populations().values()
        if all(training in by_training for training in trainings)
    ]
    try:
        data.setup("fit")
        data.setup("test" if study.settings.evaluation.split == "test" else "validate")
        size = data_size(study, data)
    except (UserError, OSError):  # without the data there is no estimate
        size = None
    running = sum(folder.claimed(population.id) for population in populations)
    found = survey(study, folder, members, populations, size, max(1, running))
    console = Console()
    console.print(f"study {study.settings.name} in {path}", soft_wrap=True, highlight=False)
    _tell_damages(folder.ledger.damages(), console)
    console.print(draw_survey(found) if console.is_terminal else describe_survey(found))
    for population in populations:
        progress = folder.progress(population.id)
        if progress.state == "failed":
            console.print(
                f"{population.title}: given up: {progress.message}", soft_wrap=True, highlight=False
            )
    others = len(folder.ledger.members()) - found.done
    if others > 0:
        console.print(f"{others} further results are of other settings of this study", highlight=False)


def _tell_damages(damages: "Sequence[Damage]", console: "Console") -> None:
    for damage in damages:
        console.print(
            f"{damage.path} {damage.cause}: started again, the study makes what is missing",
            soft_wrap=True,
            highlight=False,
        )


def _report(arguments: Sequence[str]) -> None:
    from rich.console import Console

    _write_report(_folder_of("report", arguments), Console())


def _write_report(path: Path, console: "Console") -> None:
    """Write findings and figures, and print the findings."""
    from asr_dni.study.folder import StudyFolder
    from asr_dni.study.report import report

    folder = StudyFolder(path)
    if not folder.ledger.members():
        raise UserError(f"{path} holds no results yet: asr-dni study run FILE makes them")
    with _quiet_matplotlib():
        files = report(folder.ledger, folder.report)
    summary = next((file for file in files if file.name == "summary.txt"), None)
    if summary is None:
        from asr_dni.study.findings import find

        text = find(folder.ledger.frame()).text()
    else:
        text = summary.read_text(encoding="utf-8")
    console.print(text, soft_wrap=True, highlight=False, markup=False)
    endings = sorted({file.suffix for file in files})
    index = next((file for file in files if file.name == "index.html"), None)
    where = f"{index} shows all" if index is not None else f"they are in {folder.report}"
    console.print(
        f"{len(files)} files written ({', '.join(endings)}): {where}", soft_wrap=True, highlight=False
    )


@contextmanager
def _quiet_matplotlib() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib")
        yield


_COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "run": _run,
    "plan": _plan,
    "status": _status,
    "report": _report,
}
