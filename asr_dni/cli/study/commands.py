"""The commands of ``asr-dni study``: says what there is, and starts it."""

import sys
from collections.abc import Callable, Sequence

from asr_dni.cli.study.plan import plan_study
from asr_dni.cli.study.report import report_study
from asr_dni.cli.study.run import run_study
from asr_dni.cli.study.status import show_status
from asr_dni.errors import UserError

COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "run": run_study,
    "plan": plan_study,
    "status": show_status,
    "report": report_study,
}

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


def study(arguments: Sequence[str]) -> None:
    """Run ``asr-dni study``.

    Raises:
        UserError: the command, a setting or the data are not valid.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_USAGE)
        sys.exit(0 if arguments else 2)
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"there is no study command {name!r}: give one of {', '.join(COMMANDS)}")
    COMMANDS[name](rest)
