"""What a forward pass ran under, kept for activation checkpointing, which runs it again in the backward pass.

``torch.utils.checkpoint`` stashes the global generators' states and autocast, and gives them back when it runs a
part of the forward pass again. Noise and dropout masks that are named by counters are no generator's: which draw it
was, and which noise was in force, would be asked for anew, after the block that set them has ended. So what each
module ran under is kept with the checkpoint's own record of the part (``_CheckpointFrame``, or the context of
``CheckpointFunction`` with ``use_reentrant``), which lives as long as the graph does, and is handed out again in the
same order.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils import checkpoint as torch_checkpoint

Settings = TypeVar("Settings")

_RECORD = "_asr_dni_forward_passes"
# torch has no interface that tells which checkpointed part is being run. These are its functions that run one; with
# a torch that has other ones the tests of each would fail.
_FIRST_REENTRANT = torch_checkpoint.CheckpointFunction.forward.__code__
_AGAIN_REENTRANT = torch_checkpoint.CheckpointFunction.backward.__code__
_OF_CHECKPOINT = torch_checkpoint.__file__


@dataclass
class _Record:
    """What modules ran under in one checkpointed part, in order; and how much of it a run-through has had."""

    settings: dict[tuple[nn.Module, str], list[Any]] = field(default_factory=dict)
    run: tuple[int, int] | None = None
    given: dict[tuple[nn.Module, str], int] = field(default_factory=dict)


def backward_task() -> int:
    """Return the number of the backward pass that this is called from; -1 outside of any."""
    return int(torch._C._current_graph_task_id())


def _parts(frame: FrameType | None) -> Iterator[tuple[Any, FrameType, bool]]:
    """Give the checkpointed parts that a call is in, innermost first: torch's record, frame, whether it runs again."""
    while frame is not None:
        code = frame.f_code
        if code is _FIRST_REENTRANT or code is _AGAIN_REENTRANT:
            yield frame.f_locals["ctx"], frame, code is _AGAIN_REENTRANT
        elif code.co_filename == _OF_CHECKPOINT:
            if code.co_name == "unpack_hook" and "frame" in frame.f_locals:
                yield frame.f_locals["frame"], frame, True
            elif code.co_name == "checkpoint" and "gen" in frame.f_locals:
                first = frame.f_locals["gen"].gi_frame
                part = None if first is None else first.f_locals.get("new_frame")
                if part is not None:
                    yield part, frame, False
        frame = frame.f_back


def settings_of_pass(module: nn.Module, kind: str, current: Callable[[], Settings]) -> Settings:
    """Return what a forward pass of a module runs under.

    Args:
        module: whose forward pass it is.
        kind: what the settings are of, where a module has several.
        current: gives what is in force now. It is not asked where a pass is run again.

    Returns:
        ``current()``; where activation checkpointing runs a pass again, what that pass had the first time.

    Raises:
        RuntimeError: a checkpointed part calls the module more often than it did the first time.
    """
    if torch.compiler.is_compiling():
        return current()
    name = module, kind
    firsts: list[_Record] = []
    again = None
    for holder, frame, is_again in _parts(sys._getframe(1)):
        record: _Record | None = getattr(holder, _RECORD, None)
        if record is None:
            record = _Record()
            setattr(holder, _RECORD, record)
        if is_again:
            again = record, (backward_task(), id(frame))
            break  # what lies further out is the backward pass, not the part
        firsts.append(record)
    if again is None:
        settings = current()
    else:
        record, run = again
        if record.run != run:
            record.run, record.given = run, {}
        place = record.given.get(name, 0)
        if place >= len(record.settings.get(name, [])):
            raise RuntimeError(
                f"activation checkpointing calls a {type(module).__name__} {place + 1} times, and called it"
                f" {place} times in the forward pass: the function that is checkpointed has to do the same each time"
            )
        record.given[name] = place + 1
        settings = record.settings[name][place]
    for record in firsts:
        record.settings.setdefault(name, []).append(settings)
    return settings
