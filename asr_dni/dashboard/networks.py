"""Trained networks in memory, the last few that were asked for, each with the clips of its test split."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from asr_dni.errors import UserError

if TYPE_CHECKING:  # with Lightning, for which a dashboard need not wait to be there
    from asr_dni.data.split_clips import SplitClips
    from asr_dni.inference import Spotter

_State: TypeAlias = tuple[str, int, int]


class Network:
    """A network that was loaded. Whoever runs it holds :attr:`lock`: its noise is a state of its modules.

    Args:
        checkpoint: the file.

    Attributes:
        spotter: the network with all that it needs to hear a recording.
        lock: one thread at a time.

    Raises:
        UserError: see :func:`asr_dni.load`.
    """

    def __init__(self, checkpoint: Path) -> None:
        from asr_dni.inference import load

        self.checkpoint = checkpoint
        self.spotter: Spotter = load(checkpoint)
        self.lock = threading.RLock()
        self._clips: SplitClips | None = None

    @property
    def clips(self) -> "SplitClips":
        """The clips of its test split, which are opened at first; nothing is downloaded or made.

        Raises:
            UserError: the data are not there any more, or not as they were.
        """
        from asr_dni.data.split_clips import SplitClips

        with self.lock:
            if self._clips is None:
                try:
                    self._clips = SplitClips(self.spotter.data(bring=False), "test")
                except OSError as error:
                    where = error.filename or self.checkpoint
                    raise UserError(f"{where}: {error.strerror or error}") from error
                except UserError as error:
                    hint = f"looked for from {Path.cwd()}, where asr-dni dashboard was started"
                    raise UserError(f"{error} ({hint})") from error
            return self._clips


class Networks:
    """The networks that were asked for last; a file that has changed since is loaded again.

    Args:
        most: that are kept.
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._kept: OrderedDict[_State, Network] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, checkpoint: Path) -> Network:
        """Return the network of a checkpoint.

        Raises:
            UserError: the file is missing or damaged, or holds no keyword spotter.
        """
        try:
            status = checkpoint.stat()
        except OSError as error:
            raise UserError(f"{checkpoint}: {error.strerror or error}") from None
        key = (str(checkpoint), status.st_mtime_ns, status.st_size)
        with self._lock:  # also while it loads: whoever else asks for it waits instead of loading it twice
            if key not in self._kept:
                self._kept[key] = Network(checkpoint)
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return self._kept[key]
