"""Read, check and write checkpoint files, whoever takes what from them.

A checkpoint may be anybody's. It is read without running code from it, and what is in it is checked here, before anyone
takes a part: its size, the form of all that this project writes, and whether a training can go on from it.
"""

import io
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from packaging.version import InvalidVersion, Version
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.files import write_atomically
from asr_dni.models import find_checkpoint

CURRENT_STATE_KEY = "current_model_state"
"""Where a checkpoint has the weights that its training goes on with, if its ``state_dict`` has averaged ones."""

_EXPECTED = "expected a .ckpt that asr-dni fit wrote"
_MOST_VALUES = 2_000_000
_DEEPEST = 64

# ---------------------------------------------------------------------- reading


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file without running code from it.

    Args:
        path: the file, or the name of a network that comes with the package.

    Raises:
        UserError: the file is missing, cannot be read, or holds no mapping of plain values and tensors.
    """
    path = find_checkpoint(path)
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
        if compressed:  # torch writes none; a small file could fill the memory
            raise ValueError("is compressed")
        _check_bytes(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its parts raise
        raise UserError(f"{path}: cannot be read as a checkpoint; {_EXPECTED}") from error
    if not isinstance(contents, dict):
        raise UserError(f"{path}: is not a Lightning checkpoint; {_EXPECTED}")
    _check_plain(contents, str(path))
    return contents


def _check_bytes(path: Path) -> None:
    """Find bytes that have changed, by the checksums that torch writes but does not look at when it reads."""
    with zipfile.ZipFile(path) as archive:
        changed = archive.testzip()
    if changed is not None:
        raise ValueError(f"{changed} does not have its checksum")


class NamedCheckpoint(dict[str, Any]):
    """Contents of a checkpoint file, in whose place messages name the file."""

    def __init__(self, contents: Mapping[str, Any], file: str | Path) -> None:
        super().__init__(contents)
        self.file = file


def open_checkpoint(checkpoint: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return a checkpoint's contents, whose form is checked, and what a message calls it.

    Args:
        checkpoint: a checkpoint file, or what ``torch.load`` made of one.

    Raises:
        UserError: the file is missing or cannot be read, or something in it is not what it has to be.
    """
    if isinstance(checkpoint, Mapping):
        contents = checkpoint
        where = str(checkpoint.file) if isinstance(checkpoint, NamedCheckpoint) else "the checkpoint"
    else:
        contents, where = read_checkpoint(checkpoint), str(checkpoint)
    _check_form(contents, _FORM, where, "")
    _check_data(contents, where, "")
    for index, member in enumerate(contents.get("PopulationData", {}).get("members", [])):
        _check_data(member, where, f"PopulationData.members[{index}].")
    return contents, where


def _check_data(contents: Mapping[Any, Any], where: str, above: str) -> None:
    """Check the states of data modules, which are kept by the names of their classes."""
    for name, value in contents.items():
        if isinstance(value, Mapping) and not _OF_DATA.isdisjoint(value):
            _check_form(value, _DATA, where, f"{above}{name}")


def _check_plain(contents: Any, where: str) -> None:
    """Find what would take more memory than the file suggests, or no end."""
    values: list[tuple[Any, int]] = [(contents, 0)]
    seen = 0
    while values:
        value, depth = values.pop()
        seen += 1
        if seen > _MOST_VALUES or depth > _DEEPEST:
            raise UserError(f"{where}: holds more than a checkpoint does; {_EXPECTED}")
        if isinstance(value, Mapping):
            values += ((part, depth + 1) for pair in value.items() for part in pair)
        elif isinstance(value, list | tuple | set | frozenset):
            values += ((part, depth + 1) for part in value)
        elif isinstance(value, Tensor):
            plain = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
            if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise UserError(f"{where}: holds a tensor that is larger than the file says; {_EXPECTED}")


# ---------------------------------------------------------------------- the form of what is in one

Form: TypeAlias = "type | tuple[Form, ...] | list[Form] | dict[str, Form] | Callable[[Any], bool] | None"
"""What a value has to be: of a type; one of several forms; a list of values of a form; a mapping with values of
forms, where a key that starts with ``?`` may be missing and ``*`` is any other key; a test that it passes."""


def _count(value: Any) -> bool:
    """Whether it is a number of things: a whole number, 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> bool:
    """Whether it consists of what YAML can say."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _version(value: Any) -> bool:
    """Whether it is the number of a version."""
    try:
        Version(value)
    except (InvalidVersion, TypeError):
        return False
    return True


_SETTINGS: Form = {"*": _plain}
_OF_DATA = frozenset({"label_names", "statistics"})
_DATA: Form = {"?label_names": [str], "?source": str, "?statistics": {"*": Tensor}, "*": object}
_SCHEDULER: Form = {
    "?base_lrs": [_number],
    "?last_epoch": _count,
    "?_step_count": _count,
    "?_is_initial": bool,
    "?_get_lr_called_within_step": bool,
    "?_last_lr": [_number],
    "?lr_lambdas": [(None, _SETTINGS)],
    "?verbose": (bool, str),
    "?_anneal_strategy": str,  # these two where StochasticWeightAveraging has its own
    "?anneal_epochs": _count,
}
_CALLBACK: Form = {
    "?best_model_score": (None, Tensor),
    "?current_score": (None, Tensor),
    "?kth_value": (None, Tensor),
    "?best_model_path": str,
    "?kth_best_model_path": str,
    "?last_model_path": str,
    "?best_k_models": {"*": Tensor},
    "?wait_count": _count,
    "?stopped_epoch": _count,
    "?patience": _count,
    "?best_score": Tensor,
    "*": object,
}
_FORM: Form = {
    "?state_dict": {"*": Tensor},
    "?epoch": _count,
    "?global_step": _count,
    "?pytorch-lightning_version": _version,
    "?hyper_parameters": {"?model": _SETTINGS, "?population": _SETTINGS, "*": object},
    "?datamodule_hyper_parameters": {"?data": _SETTINGS, "*": object},
    "?PopulationData": {
        "?data_seeds": [_count],
        "?of_member": [_count],
        "?data": _DATA,
        "?members": [{"*": object}],
    },
    "?population_state": {
        "sigma_train": [_number],
        "?highest_sigma_train": [(None, _number)],
        "trainings": [[_SETTINGS]],
        "history": [_SETTINGS],
        "diverged": dict,
        "train_scores": {"*": Tensor},
    },
    "?trainings": [_SETTINGS],
    "?sigma_train": {"now": _number, "annealed_to": (None, _number), "?highest": (None, _number)},
    "?callbacks": {"*": _CALLBACK},
    "?loops": {
        "?fit_loop": {"?state_dict": {"?combined_loader": [{"*": _plain}], "*": object}, "*": object},
        "*": object,
    },
    "?optimizer_states": [{"state": dict, "param_groups": [dict]}],
    "?lr_schedulers": [_SCHEDULER],
    "*": object,
}


def _is_of(value: Any, form: Form) -> bool:
    try:
        _check_form(value, form, "", "")
    except UserError:
        return False
    return True


def _check_form(value: Any, form: Form, where: str, key: str) -> None:
    """Find what is not as it has to be.

    Raises:
        UserError: names the key.
    """
    if isinstance(form, dict):
        fits = isinstance(value, Mapping)
        if fits:
            _check_mapping(value, form, where, key)
    elif isinstance(form, list):
        fits = isinstance(value, list | tuple)
        for index, part in enumerate(value if fits else ()):
            _check_form(part, form[0], where, f"{key}[{index}]")
    elif isinstance(form, tuple):
        fits = any(_is_of(value, possible) for possible in form)
    elif form is None:
        fits = value is None
    else:
        fits = isinstance(value, form) if isinstance(form, type) else form(value)
    if not fits:
        raise UserError(f"{where}: {key or 'it'} is not what it has to be in a checkpoint; {_EXPECTED}")


def _check_mapping(value: Mapping[Any, Any], form: Mapping[str, Form], where: str, key: str) -> None:
    named = {name.removeprefix("?"): (name, part) for name, part in form.items() if name != "*"}
    missing = [
        name for name, (written, _) in named.items() if not written.startswith("?") and name not in value
    ]
    if missing:
        raise UserError(f"{where}: {key or 'it'} has no {missing[0]}; {_EXPECTED}")
    for name, part in value.items():
        inner = f"{key}.{name}" if key else str(name)
        if name in named:
            _check_form(part, named[name][1], where, inner)
        elif "*" in form and isinstance(name, str):
            _check_form(part, form["*"], where, inner)
        else:
            raise UserError(f"{where}: {inner} does not belong into a checkpoint; {_EXPECTED}")


# ---------------------------------------------------------------------- taking parts of it


def load_weights(
    module: nn.Module, contents: Mapping[str, Any], where: str, may_have_diverged: bool = False
) -> None:
    """Give a network the weights of a checkpoint.

    Args:
        module: made with the checkpoint's settings.
        contents: what :func:`open_checkpoint` returned.
        where: the same.
        may_have_diverged: whether weights that are not finite numbers are taken as well: those of a population, in
            which a member that diverged harms nobody else.

    Raises:
        UserError: the checkpoint has none, those of another network, or some that are not finite numbers.
    """
    if "state_dict" not in contents:
        raise UserError(f"{where}: is not a Lightning checkpoint; {_EXPECTED}")
    try:
        module.load_state_dict(contents["state_dict"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        first = next((line.strip() for line in str(error).splitlines()[1:]), str(error).strip())
        raise UserError(
            f"{where}: holds another network than its settings describe ({first[:200]})"
        ) from error
    wrong = [name for name, value in contents["state_dict"].items() if not value.isfinite().all()]
    if wrong and not may_have_diverged:
        raise UserError(
            f"{where}: holds weights that are not finite numbers ({wrong[0]}), as of a training that diverged; give an"
            " earlier checkpoint, or train anew with a lower learning rate"
        )


def check_evaluable(contents: Mapping[str, Any], where: str) -> None:
    """Find what Lightning misses in a checkpoint that is evaluated.

    Raises:
        UserError: names it.
    """
    _check_has(("pytorch-lightning_version", "state_dict", "epoch", "global_step"), contents, where)


def check_resumable(
    contents: Mapping[str, Any],
    where: str,
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    module: nn.Module,
    may_have_diverged: bool = False,
) -> None:
    """Find out whether a training can go on from a checkpoint.

    Args:
        contents: what :func:`open_checkpoint` returned.
        where: the same.
        make_optimizer: makes the training's optimiser.
        module: that is trained, with its weights; it is not changed.
        may_have_diverged: as for :func:`load_weights`.

    Raises:
        UserError: names what is missing or does not fit.
    """
    check_evaluable(contents, where)
    _check_has(("optimizer_states", "lr_schedulers", "loops"), contents, where, "cannot be resumed")
    for name, form in _loops().items():
        if name in contents["loops"]:
            _check_form(contents["loops"][name], form, where, f"loops.{name}")
    if len(contents["optimizer_states"]) != 1 or len(contents["lr_schedulers"]) != 1:
        raise UserError(f"{where}: is not of a training with one optimiser; {_EXPECTED}")
    # A step on copies, without gradients, tells whether the state fits, whatever optimiser it is.
    copies = [nn.Parameter(parameter.detach().cpu().clone()) for parameter in module.parameters()]
    for parameter in copies:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(copies)
    try:
        optimizer.load_state_dict(contents["optimizer_states"][0])
        optimizer.step(lambda: 0.0)
    except Exception as error:  # an optimiser raises whatever a wrong state leads to
        raise UserError(
            f"{where}: cannot be resumed, the optimiser's state is not that of {type(optimizer).__name__} and this"
            " network; give the optimiser and network that it was trained with"
        ) from error
    if not may_have_diverged and not all(parameter.isfinite().all() for parameter in copies):
        raise UserError(
            f"{where}: cannot be resumed, the optimiser's state holds values that are not finite numbers, as of a"
            " training that diverged; give an earlier checkpoint, or train anew with a lower learning rate"
        )


def _check_has(keys: Iterable[str], contents: Mapping[str, Any], where: str, otherwise: str = "") -> None:
    missing = [key for key in keys if key not in contents]
    if missing:
        what = f"{otherwise}, " if otherwise else ""
        raise UserError(f"{where}: {what}it has no {missing[0]}; {_EXPECTED}")


@cache
def _loops() -> dict[str, Form]:
    """Return the form of the loops' states, as Lightning writes them."""
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)

    def form_of(value: Any) -> Form:
        if isinstance(value, dict):
            return {
                **{f"?{key}": form_of(part) for key, part in value.items()},
                **({} if value else {"*": object}),
            }
        return bool if isinstance(value, bool) else _count if isinstance(value, int) else object

    loops = {
        "fit_loop": trainer.fit_loop,
        "validate_loop": trainer.validate_loop,
        "test_loop": trainer.test_loop,
    }
    forms: dict[str, Form] = {}
    for name, loop in loops.items():
        form = form_of(loop.state_dict())
        assert isinstance(form, dict)
        forms[name] = {**form, "*": object}
    return forms


# ---------------------------------------------------------------------- writing


def write_checkpoint(contents: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint file; one that was there stays whole until the disk has all of the new one.

    Raises:
        OSError: it could not be written, such as on a full disk; it names ``path``.
    """
    # torch's writer answers a full disk with an error of its own that says neither what nor where.
    contents_in_memory = io.BytesIO()
    torch.save(dict(contents), contents_in_memory)
    with write_atomically(path) as temporary:
        temporary.write_bytes(contents_in_memory.getbuffer())


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a trainer's checkpoints by :func:`write_checkpoint`.

    Lightning's own way writes to the folder for temporary files. Where that is on another file system, the finished
    file is copied over the one before, which a kill or a full disk at that moment destroys.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; one in an object store as Lightning does."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            write_checkpoint(checkpoint, path)


def write_durable_checkpoints(trainer: pl.Trainer) -> None:
    """Have a trainer write its checkpoints by :class:`DurableCheckpointIO`, unless it was given a way of its own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = DurableCheckpointIO()
