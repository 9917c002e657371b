"""How a study is, in a row of a table: from its folder, without its data."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from asr_dni.catalogue.entry import State
from asr_dni.errors import UserError

if TYPE_CHECKING:
    from asr_dni.study.folder import StudyFolder


def study_row(folder: "StudyFolder") -> dict[str, Any]:
    """Return what :meth:`asr_dni.catalogue.Catalogue.studies` says of a study."""
    message, results = "", 0
    state: State
    try:
        results = len(folder.ledger.members())
        damages = folder.ledger.damages()
        if damages:
            message = f"{damages[0].path.relative_to(folder.path)} {damages[0].cause}"
            message += f"; {len(damages) - 1} more" if len(damages) > 1 else ""
        populations = folder.recorded_populations()
        unfinished = [name for name in populations if folder.progress(name).state != "done"]
        running = any(folder.claimed(name) for name in unfinished)
    except (UserError, OSError) as error:
        message, unfinished, running = message or str(error), [], False
    if running:
        state = "running"
    elif message:
        state = "damaged"
    else:
        state = "interrupted" if unfinished or not results else "finished"
    times = [path.stat().st_mtime for path in (folder.path, folder.ledger.path) if path.exists()]
    return {
        "state": state,
        "message": " ".join(message.split()),
        "name": folder.path.name,
        "results": results,
        "changed": pd.Timestamp(max(times, default=0), unit="s", tz="UTC"),
    }
