"""``asr-dni dashboard``: results in a browser."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_dni.cli.functions import run_function


def dashboard(
    runs: Path = Path("runs"), host: str = "127.0.0.1", port: int = 8050, open: bool = False
) -> None:
    """Serve pages that compare noise curves, show studies and runs, and run a network under noise, in a browser.

    Args:
        runs: folder of runs and studies.
        host: address to serve at; any other than this machine's own needs the token that the printed link has.
        port: of the server; where it is taken, the next free one.
        open: open a browser.
    """
    from asr_dni.dashboard.server import serve

    serve(runs, host, port, open_browser=open)


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni dashboard``."""
    options: dict[str, dict[str, Any]] = {
        "runs": {"type": Path, "nargs": "?", "default": Path("runs"), "help": "folder of runs and studies"},
        "--open": {"action": "store_true", "help": "open a browser"},
    }
    run_function(dashboard, "dashboard", arguments, None, **options)
