"""How Weights & Biases is started: never with a question, and never so that a training waits for it.

W&B itself asks for a login where there is none, and gives a run up after a minute and a half where its server does not
answer. Here such a run is offline, which one line says, and can be uploaded later (``asr-dni wandb sync``).
"""

import logging
import os
import ssl
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Literal, cast

from asr_dni.errors import UserError

if TYPE_CHECKING:
    from wandb import Settings

WandbMode = Literal["online", "offline", "disabled", "shared"]

logger = logging.getLogger(__name__)

_MODES = ("online", "offline", "disabled", "shared")
_ALIASES = {"run": "online", "dryrun": "offline"}
_ANSWER_SECONDS = 5.0
_VARIABLES = {
    "root_dir": "WANDB_DIR",
    "run_name": "WANDB_NAME",
    "run_notes": "WANDB_NOTES",
    "run_tags": "WANDB_TAGS",
    "run_job_type": "WANDB_JOB_TYPE",
}


def wandb_settings(project: str | None = None) -> "Settings":
    """Return W&B's settings from its files and the environment, without starting its service.

    Args:
        project: name of a project that is chosen before theirs.

    Raises:
        UserError: a value in them is not valid, or no project of W&B can have this name.
    """
    import wandb  # takes most of a second
    from pydantic import ValidationError

    settings = wandb.Settings()
    try:
        settings.update_from_system_settings()
        settings.update_from_env_vars(dict(os.environ))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        reason = " ".join(str(first["msg"]).split())
        variable = _VARIABLES.get(key, f"WANDB_{key.upper()}")
        raise UserError(
            f"W&B: {variable} is {first['input']!r}: {reason} (in the environment, or as {key} in a settings file)"
        ) from None
    except (ValueError, wandb.errors.UsageError) as error:
        raise UserError(
            f"W&B's settings (WANDB_PROJECT, WANDB_RUN_ID, ... in the environment, or a settings file) are not valid:"
            f" {' '.join(str(error).split())}"
        ) from None
    if project:
        try:
            settings.project = project
        except wandb.errors.UsageError as error:
            raise UserError(f"wandb_project: {' '.join(str(error).split())}; give another name") from None
    return settings


def check_wandb(project: str | None, mode: WandbMode | None) -> None:
    """Find what would keep W&B from being started, before anything is written; nothing is connected to.

    Args:
        project: name of the project; ``None``: that of the environment or a settings file.
        mode: see :func:`resolve_wandb_mode`.

    Raises:
        UserError: see :func:`resolve_wandb_mode` and :func:`wandb_settings`.
    """
    resolve_wandb_mode(mode)
    wandb_settings(project)


def _has_login(settings: "Settings") -> bool:
    from wandb.sdk.lib.wbauth import read_netrc_auth, session_credentials

    return bool(
        settings.api_key
        or settings.identity_token_file
        or session_credentials(host=settings.base_url)
        or read_netrc_auth(host=settings.base_url)
    )


def resolve_wandb_mode(mode: WandbMode | None = None) -> WandbMode:
    """Return the mode to start W&B in so that it does not ask for a login; nothing is connected to.

    An explicit choice stands: the argument, else the environment's ``WANDB_MODE`` or ``wandb offline``'s settings file;
    ``WANDB_DISABLED`` is one too. Without one it is ``online`` where there is a login (``WANDB_API_KEY``, an identity
    token, netrc, or ``wandb login`` in this process), else ``offline``.

    Raises:
        UserError: ``online`` was chosen and there is no login, where W&B would ask for one; or the mode is
            unknown.
    """
    if mode is None and os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        return "disabled"
    settings = wandb_settings()
    chosen = mode or (settings.mode if "mode" in settings.model_fields_set else None)
    if chosen is None:
        return "online" if _has_login(settings) else "offline"
    chosen = cast(Any, _ALIASES.get(chosen, chosen))
    if chosen not in _MODES:
        raise UserError(f"W&B mode {chosen!r} is not known: give {', '.join(_MODES[:-1])} or {_MODES[-1]}")
    if chosen in ("online", "shared") and not _has_login(settings):
        raise UserError(
            f"W&B is set to {chosen}, but there is no login: run `wandb login`, set WANDB_API_KEY, or choose"
            " WANDB_MODE=offline"
        )
    return cast(WandbMode, chosen)


def working_wandb_mode(mode: WandbMode | None = None) -> WandbMode:
    """Return the mode to start W&B in, which is ``offline``, and say why, where online cannot work.

    That is where the key is none that W&B takes, or its server does not answer within seconds; else it is that of
    :func:`resolve_wandb_mode`.

    Raises:
        UserError: see :func:`resolve_wandb_mode`.
    """
    resolved = resolve_wandb_mode(mode)
    if resolved not in ("online", "shared"):
        return resolved
    settings = wandb_settings()
    problem = _problem_of_key(settings.api_key) or _problem_of_network(settings.base_url)
    if problem is None:
        return resolved
    say_offline(problem)
    return "offline"


def why_not_online() -> str | None:
    """Return in one line why nothing can be sent to W&B now: no login, none that is one, or no network; else ``None``.

    Raises:
        UserError: see :func:`wandb_settings`.
    """
    settings = wandb_settings()
    if not _has_login(settings):
        return f"there is no login at {settings.base_url}: run `wandb login`, or set WANDB_API_KEY"
    return _problem_of_key(settings.api_key) or _problem_of_network(settings.base_url)


def say_offline(problem: str) -> None:
    """Say in one line that a run is offline though it was to be online."""
    logger.warning(
        "W&B: %s; this run is offline, asr-dni wandb sync uploads it later", " ".join(problem.split())
    )


def _problem_of_key(key: str | None) -> str | None:
    from wandb.sdk.lib.wbauth.validation import check_api_key

    problem = check_api_key(key) if key else None
    return f"WANDB_API_KEY cannot be a key ({problem.rstrip('.')})" if problem else None


def _problem_of_network(address: str) -> str | None:
    """Try for seconds to get any answer from a server, through whatever proxy the environment names."""
    found: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(address, timeout=_ANSWER_SECONDS):
                found.append(None)
        except urllib.error.HTTPError:
            found.append(None)  # an answer
        except urllib.error.URLError as error:
            # W&B has certificates of its own.
            found.append(None if isinstance(error.reason, ssl.SSLError) else str(error.reason))
        except (OSError, ValueError) as error:
            found.append(str(error))

    # In a thread: looking a name up obeys no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * _ANSWER_SECONDS)
    reason = found[0] if found else "no answer"
    return None if reason is None else f"{address} cannot be reached ({reason})"
