"""``asr-dni wandb``: uploads offline runs to Weights & Biases, and builds the team's dashboard there."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asr_dni.cli.functions import progress_bar, run_function
from asr_dni.errors import UserError
from asr_dni.files import write_atomically
from asr_dni.noise import SIGMA, Strength
from asr_dni.wording import count

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

RUNS: dict[str, Any] = {
    "type": Path,
    "nargs": "?",
    "default": Path("runs"),
    "help": "folder of runs; default: runs",
}


def sync_runs(
    runs: Path = Path("runs"),
    project: str | None = None,
    entity: str | None = None,
    again: bool = False,
    dry_run: bool = False,
) -> None:
    """Upload the runs below a folder that W&B logged offline; those that it has already are skipped.

    It may be interrupted and started again at any time. Runs that are still being written wait.

    Args:
        runs: a folder of runs, of one run, or an offline-run folder of W&B.
        project: the project in W&B; by default that of each run.
        entity: the team or user; by default your own.
        again: upload those that were uploaded already, too.
        dry_run: only say what would be done.
    """
    from asr_dni.evaluation.loggers.wandb_mode import why_not_online
    from asr_dni.evaluation.loggers.wandb_offline import offline_runs

    if not runs.is_dir():
        raise UserError(f"{runs}: there is no such folder; give a folder of runs")
    found = offline_runs(runs)
    by_state = Counter(run.state for run in found)
    due = [run for run in found if run.state == "waiting" or (again and run.state == "uploaded")]
    skipped = [] if again else [(by_state["uploaded"], "uploaded already")]
    skipped.append((by_state["being written"], "still being written"))
    said = [f"{number} {why}" for number, why in skipped if number]
    print(f"{count(len(due), 'run')} to upload{''.join(f', {what}' for what in said)}", flush=True)
    if not due:
        return
    if dry_run:
        for run in due:
            print(f"  {run.folder}")
        return
    problem = why_not_online()
    if problem is not None:
        raise UserError(f"W&B: {problem}; nothing was uploaded")
    options = [part for name, value in (("-p", project), ("-e", entity)) if value for part in (name, value)]
    options += ["--include-synced"] if again else []
    # What says how a run is to be logged would be taken for the upload, too.
    kept = ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR")
    environment = {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith("WANDB_")
    }
    for run in due if again else ():
        run.file.with_name(f"{run.file.name}.synced").unlink(missing_ok=True)
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *options, *(str(run.folder) for run in due)]
    code = subprocess.run(command, env=environment, check=False).returncode
    missing = [run for run in due if run.state != "uploaded"]
    if missing:
        raise UserError(
            f"{len(missing)} of {count(len(due), 'run')} could not be uploaded (W&B's client ended with {code}, and"
            f" says why above), the first is {missing[0].folder}; the same command goes on with them"
        )
    print(f"{count(len(due), 'run')} uploaded")


def show_status(runs: Path = Path("runs")) -> None:
    """Say whether runs are logged online, and which of those below a folder are not uploaded yet.

    Args:
        runs: a folder of runs.
    """
    from asr_dni.evaluation.loggers.wandb_mode import resolve_wandb_mode, wandb_settings, why_not_online
    from asr_dni.evaluation.loggers.wandb_offline import offline_runs

    problem, mode = why_not_online(), resolve_wandb_mode()
    if mode == "online" and problem is not None:
        mode = "offline"
    settings = wandb_settings()
    print(f"server: {settings.base_url}: {problem or 'there is a login, and it answers'}")
    print(f"runs are logged: {mode}; project: {settings.project or 'asr-dni'}")
    found = offline_runs(runs)
    states = Counter(run.state for run in found)
    listed = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    print(f"offline runs below {runs}: {listed or 'none'}")
    if states["waiting"]:
        print(f"asr-dni wandb sync {runs} uploads those that wait")


def build_workspace(
    project: str | None = None,
    entity: str | None = None,
    name: str = "Noise curves",
    strengths: list[str] = [SIGMA.path],  # noqa: B006  shown as the default on the command line
    replace: str | None = None,
    dry_run: bool = False,
    output: Path | None = None,
) -> None:
    """Build the dashboard of a project in W&B: curves of all runs over each other, matrix, learning curves, tables.

    Args:
        project: the project; by default that of WANDB_PROJECT, else asr-dni.
        entity: the team or user; by default your own.
        name: of the new view in the project's workspace.
        strengths: what there are curves over, such as output.sigma,adc.bits.
        replace: address of a view that was built before and is built anew.
        dry_run: do not connect to W&B, only write the specification.
        output: a file that the specification is written to, as JSON.
    """
    from asr_dni.evaluation.loggers.wandb_mode import wandb_settings, why_not_online
    from asr_dni.evaluation.loggers.wandb_workspace import noise_curve_workspace, specification

    settings = wandb_settings(project)
    axes = [Strength.parse(strength) for strength in strengths]
    if not dry_run:
        problem = why_not_online()
        if problem is not None:
            raise UserError(f"W&B: {problem}; --dry_run true --output FILE writes the specification")
    built = noise_curve_workspace(
        entity or settings.entity or ("" if dry_run else _own_entity()),
        settings.project or "asr-dni",
        name,
        axes,
    )
    if output is not None:
        with write_atomically(output) as temporary:
            temporary.write_text(json.dumps(specification(built), indent=1) + "\n", encoding="utf-8")
        print(f"specification written to {output}")
    elif dry_run:
        print(json.dumps(specification(built), indent=1))
    if not dry_run:
        print(f"W&B: {_save(built, replace)}")


def log_results(
    study: Path,
    project: str | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
) -> None:
    """Log a study's results to W&B: a run for each member, with its noise curve, and one with the matrix.

    Members that were logged before are left out.

    Args:
        study: its folder, such as runs/study/quick.
        project: the project; by default that of WANDB_PROJECT, else asr-dni.
        mode: auto is online where there is a login and a network, else offline.
    """
    from asr_dni.study.wandb_runs import log_study

    if not study.is_dir():
        raise UserError(f"{study}: there is no such folder; give a study's, such as runs/study/quick")
    with progress_bar() as progress:
        task = progress.add_task("W&B", total=None)
        runs = log_study(
            study,
            project,
            None if mode == "auto" else mode,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if not runs:
        print("W&B: nothing to log: every member was logged before, or W&B is disabled")
    elif runs[-1].offline:
        print(f"W&B, offline: {count(len(runs), 'run')} logged; asr-dni wandb sync {study} uploads them")
    else:
        print(f"W&B: {count(len(runs), 'run')} logged, the whole is {runs[-1].url}")


def _own_entity() -> str:
    import wandb

    return str(_asked(lambda: wandb.Api().default_entity))


def _save(built: "Workspace", replace: str | None) -> str:
    """Save a workspace, as a new view or in place of one, and return its address."""
    from wandb_workspaces.workspaces import Workspace

    def save() -> str:
        view = built
        if replace is not None:
            view = Workspace.from_url(replace)
            view.name, view.sections = built.name, built.sections
            view.settings, view.runset_settings = built.settings, built.runset_settings
        return str(view.save().url)  # type: ignore[no-untyped-call]

    return str(_asked(save))


def _asked(question: Callable[[], object]) -> object:
    """Return W&B's answer; that it refuses is the user's to mend."""
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        return question()
    except (wandb.Error, WandbApiFailedError, ValueError, OSError) as error:
        raise UserError(f"W&B: {' '.join(str(error).split())[:300]}") from error


COMMANDS: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "sync": (sync_runs, {"runs": RUNS}),
    "status": (show_status, {"runs": RUNS}),
    "study": (log_results, {"study": {"type": Path, "help": "the study's folder"}}),
    "workspace": (build_workspace, {}),
}

_USAGE = """\
usage: asr-dni wandb COMMAND ...

Weights & Biases: what its own client does not do for noise curves, or does without looking below a folder of runs.

commands:
  sync [RUNS]    upload the runs that were logged offline; may be interrupted and started again
  status [RUNS]  print whether there is a login, and which runs wait to be uploaded
  study DIR      log a study's results: a run for each member, and one for the matrix
  workspace      build the team's dashboard: curves over each other, matrix, learning curves, tables

examples:
  asr-dni wandb sync runs
  asr-dni wandb workspace --project digits --entity TEAM
  asr-dni wandb workspace --dry_run true --output spec.json

"asr-dni wandb COMMAND --help" lists a command's settings. For everything else there is W&B's own command, wandb."""


def wandb(arguments: Sequence[str]) -> None:
    """Run ``asr-dni wandb``.

    Raises:
        UserError: there is no such command, or no login or network where one is needed.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_USAGE)
        sys.exit(0 if arguments else 2)
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"there is no wandb command {name!r}: give one of {', '.join(COMMANDS)}")
    function, positional = COMMANDS[name]
    run_function(function, f"wandb {name}", rest, **positional)
