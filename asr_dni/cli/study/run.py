"""``asr-dni study run``: does what is missing, then reports."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asr_dni.cli.study.command_line import prepare, read
from asr_dni.cli.study.durations import duration
from asr_dni.cli.study.plan import print_plan
from asr_dni.cli.study.progress import Display
from asr_dni.cli.study.report import write_report

if TYPE_CHECKING:
    from rich.console import Console

    from asr_dni.study.engine import StudyRun


def run_study(arguments: Sequence[str]) -> None:
    """Run ``asr-dni study run``."""
    study, parsed = read("run", arguments)
    run = prepare(study, parsed)
    if parsed.dry_run:
        print_plan(run, parsed.measure)
        return
    from asr_dni.terminal import make_console

    if parsed.wandb != "disabled":
        from asr_dni.evaluation.loggers.wandb_mode import check_wandb

        check_wandb(parsed.wandb_project, None if parsed.wandb == "auto" else parsed.wandb)
    console = make_console()
    errors = make_console(stderr=True)
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
        write_report(run.folder.path, console)
    if parsed.wandb != "disabled" and run.folder.ledger.members():
        from asr_dni.cli.wandb import log_results

        log_results(run.folder.path, parsed.wandb_project, parsed.wandb)
    console.print(f"done in {duration(time.monotonic() - began)}", highlight=False)
    if still:
        print(
            f"asr-dni: {still} of {len(run.members)} members are missing; the same command tries them again",
            file=sys.stderr,
        )
        sys.exit(1)


def _work(run: "StudyRun", console: "Console") -> None:
    from asr_dni.study.pool import InProcess, Pool
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
