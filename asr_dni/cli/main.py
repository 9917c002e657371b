"""The console command ``asr-dni``: says what there is, and starts it. Heavy imports wait until they are needed."""

import gc
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import NamedTuple

from asr_dni import __version__, told_once
from asr_dni.errors import UserError, printable
from asr_dni.memory import keep_freed_memory
from asr_dni.named_classes import only_named_classes, take_allowed


class Command(NamedTuple):
    """A command of ``asr-dni``.

    Attributes:
        summary: what it does, in a line.
        module: which is imported when the command is run.
        function: of this module; its argument is the command line after the command's name.
    """

    summary: str
    module: str
    function: str


COMMANDS: dict[str, Command] = {
    "fit": Command(
        "train a keyword spotter, then test it and draw its noise curve", "asr_dni.cli.lightning", "fit"
    ),
    "validate": Command("evaluate a checkpoint on the validation split", "asr_dni.cli.lightning", "validate"),
    "test": Command(
        "evaluate a checkpoint on the test split and draw its noise curve", "asr_dni.cli.lightning", "test"
    ),
    "predict": Command(
        "write a checkpoint's decisions on recordings of your own, or on its test split",
        "asr_dni.cli.predict",
        "run",
    ),
    "convert": Command(
        "make a checkpoint of weights that torch's own RNN, LSTM or GRU was trained to",
        "asr_dni.cli.convert",
        "convert",
    ),
    "noise-curve": Command(
        "measure a checkpoint's accuracy against inference noise, on its test split or any folder of clips",
        "asr_dni.cli.noise_curve",
        "run",
    ),
    "evaluate": Command(
        "evaluate a checkpoint under any hardware: curves, classes, calibration, votes, clips, as tables",
        "asr_dni.cli.evaluate",
        "run",
    ),
    "runs": Command(
        "list the runs and studies below a folder: state, seeds, accuracy, midpoint",
        "asr_dni.cli.runs",
        "run",
    ),
    "compare": Command(
        "overlay the noise curves of several runs, pooling seeds, as a figure and a table",
        "asr_dni.cli.compare",
        "run",
    ),
    "report": Command(
        "put runs and studies on one page that needs no network, or into a PDF for papers",
        "asr_dni.cli.report",
        "run",
    ),
    "dashboard": Command(
        "compare noise curves, studies and runs in a browser, and hear and see what noise does to a clip",
        "asr_dni.cli.dashboard",
        "run",
    ),
    "study": Command(
        "train and evaluate a whole matrix, sigma_train x sigma_infer, resumable, on one machine or many",
        "asr_dni.cli.study.commands",
        "study",
    ),
    "demo": Command(
        "train a conventional and a noise-trained network on synthetic speech and compare them",
        "asr_dni.cli.demo",
        "run",
    ),
    "wandb": Command(
        "upload offline runs to Weights & Biases, and build the team's dashboard there",
        "asr_dni.cli.wandb",
        "wandb",
    ),
    "models": Command(
        "list the trained networks that come with the package, show one, or copy its files",
        "asr_dni.cli.models",
        "models",
    ),
    "conf": Command(
        "list, show or copy the configurations that come with the project", "asr_dni.cli.conf", "conf"
    ),
    "noise": Command(
        "list the hardware and the noise models there are, or show one: equations, numbers, sources, a figure",
        "asr_dni.cli.noise",
        "noise",
    ),
    "info": Command(
        "print versions, devices and which implementation of the recurrence is in use",
        "asr_dni.cli.info",
        "run",
    ),
}

_CONFIGURED = ("fit", "validate", "test", "predict", "noise-curve", "evaluate", "study")
"""Commands whose settings name classes: they take ``--allow MODULE``."""

_EPILOG = """\
examples:
  asr-dni demo
  asr-dni fit --config synthetic_lstm_dni
  asr-dni predict eight_words_dni FOLDER --sigma 1
  asr-dni noise-curve runs/demo/dni/version_0/checkpoints/last.ckpt --data FOLDER --split all
  asr-dni compare runs/eight_words --output figures

"asr-dni COMMAND --help" lists a command's settings. They come from YAML files (--config, several are layered, later
ones win; a file, or a name of "asr-dni conf list") and from the command line. Results go to the folder runs/.
Settings, a checkpoint's too, may name classes of asr_dni, Lightning and torch.optim only; --allow MODULE adds those
of your own."""


def usage() -> str:
    """Return the text of ``asr-dni --help``."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: asr-dni [--version] [--help] COMMAND ...\n\n"
        "Train keyword spotters that keep working when their arithmetic is noisy.\n\n"
        f"commands:\n{commands}\n\n{_EPILOG}"
    )


@contextmanager
def _termination() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM do what Ctrl-C does; yield whether it came.

    Lightning's own handler, which calls this one, looks at batches' ends only, not everywhere, and exits with 0.
    """
    process, received = os.getpid(), False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if os.getpid() != process:  # a worker that inherited the handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not received:  # once: a second one would break into the clearing up
            received = True
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield lambda: received
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield lambda: received
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_names_are_utf8(arguments: Sequence[str]) -> None:
    """Refuse names that YAML, JSON and W&B could not write; the files in folders that are named may have them."""
    for what, name in (*(("", argument) for argument in arguments), ("the current folder ", os.getcwd())):
        if name != printable(name):
            raise UserError(
                f"{what}{printable(name)}: this name is not UTF-8; rename it (convmv -f latin1 -t utf8), or make a"
                " link to it that has another name (ln -s)"
            )


def _function(command: Command) -> Callable[[Sequence[str]], object]:
    """Import a command, without the garbage collector, which would take a quarter of the start and find nothing."""
    first = command.module not in sys.modules and gc.isenabled()
    if first:
        gc.disable()
    try:
        function: Callable[[Sequence[str]], object] = getattr(import_module(command.module), command.function)
        if first:
            gc.freeze()
    finally:
        if first:
            gc.enable()
    return function


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``asr-dni``; a user's mistake ends it with one line on standard error and exit code 2.

    An interruption ends it with one line as well, and with 130 (Ctrl-C) or 143 (SIGTERM).

    Args:
        arguments: the command line without the program's name; ``None`` takes it from ``sys.argv``.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    told_once.forget()
    logging.raiseExceptions = (
        False  # a log file that the full disk does not take is told once, not by tracebacks
    )
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        print(f"asr-dni {__version__}")
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may have what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    name, rest = arguments[0], arguments[1:]
    with _termination() as terminated:
        try:
            _check_names_are_utf8(rest)
            if name not in COMMANDS:
                raise UserError(f"there is no command {name!r}: give one of {', '.join(COMMANDS)}")
            keep_freed_memory()
            modules, rest = take_allowed(rest) if name in _CONFIGURED else ([], rest)
            with only_named_classes(modules):
                _function(COMMANDS[name])(rest)
        except UserError as error:
            print(f"asr-dni: error: {error}", file=sys.stderr)
            sys.exit(2)
        except BrokenPipeError:
            # Whoever read the output, as `head` does, has had enough; Python would complain when it flushes the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:
            # The disk is full, a folder may not be written to: nothing that a traceback would explain better.
            if error.strerror is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            print(f"asr-dni: error: {where}{error.strerror}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt as interruption:
            said = f", {interruption}" if str(interruption) else ""
            what, code = ("terminated", 143) if terminated() else ("interrupted", 130)
            print(f"\nasr-dni: {what}{said}", file=sys.stderr)
            sys.exit(code)
