"""Weights that were trained elsewhere, by torch's own layers, for a keyword network."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr_dni.checkpoint import read_checkpoint
from asr_dni.errors import UserError
from asr_dni.model.network import KeywordNetwork
from asr_dni.model.spotter import KeywordSpotter
from asr_dni.models import find_checkpoint
from asr_dni.nn.learned_bounds import is_learned_bound

_OF_A_SPOTTER = "network."
_OF_A_LAYER = re.compile(r"(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read weights that ``torch.save(network.state_dict(), path)`` wrote, without running code from the file.

    A checkpoint that keeps them under ``state_dict`` or ``model`` will do as well, one of ``asr-dni fit`` among them.

    Raises:
        UserError: the file is missing, cannot be read, or holds no weights.
    """
    try:
        contents: Any = read_checkpoint(path)
    except UserError as error:
        said = str(error).partition(";")[0]
        raise UserError(
            f"{said}; expected what torch.save(network.state_dict(), ...) writes, or a .ckpt"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(contents.get(key), Mapping):
            contents = contents[key]
            break
    weights = {str(name): value for name, value in contents.items() if isinstance(value, Tensor)}
    if weights and all(name.startswith(_OF_A_SPOTTER) for name in weights):
        weights = {name.removeprefix(_OF_A_SPOTTER): value for name, value in weights.items()}
    if not weights:
        raise UserError(
            f"{path}: holds no weights; expected what torch.save(network.state_dict(), ...) writes"
        )
    return weights


def take_weights(
    network: KeywordNetwork,
    weights: Mapping[str, Tensor],
    recurrent: str | None = None,
    classifier: str | None = None,
    order: Sequence[int] | None = None,
    where: str = "the weights",
) -> list[str]:
    """Give a keyword network the weights of a recurrent layer and a linear one of torch's.

    ``torch.nn.RNN``, ``LSTM`` and ``GRU`` in any number of layers and directions, with or without bias, and
    ``torch.nn.Linear``. What was known of the size of the network's signals is forgotten. A state dict of a whole
    keyword network is taken as it is.

    Args:
        network: without convolutions, unless ``weights`` are of such a network.
        weights: by their names.
        recurrent: what stands before the names of the recurrent layer's, such as ``lstm`` in ``lstm.weight_ih_l0``;
            ``None``: there is one.
        classifier: likewise of the linear layer; ``None``: there is one of that shape.
        order: the place in the classifier's outputs of each of the network's labels; ``None``: the same order.
        where: what a message calls the weights.

    Returns:
        The names of weights that were not needed.

    Raises:
        UserError: a layer is not found, is found more than once, has another shape, or has values that are not finite.
    """
    own = dict(network.named_parameters()) | dict(network.named_buffers())
    own = {name: its for name, its in own.items() if name in weights or not is_learned_bound(name)}
    if set(weights) >= set(own):
        taken, used = {name: weights[name] for name in own}, set(own)
    else:
        if network.convolutions is not None:
            raise UserError(
                f"{where}: has no convolutions by the network's names: give a model without model.network.convolutions"
            )
        if network.frame_weights is not None:
            raise UserError(
                f"{where}: has no weights of frames by the network's names: give a model with another pooling than"
                " attention"
            )
        prefixes = {
            "recurrent": _prefix_of_recurrent(weights, recurrent, where),
            "classifier": _prefix_of_linear(weights, classifier, network, where),
        }
        taken, used = {}, set()
        for name, parameter in own.items():
            layer, _, rest = name.partition(".")
            given = f"{prefixes[layer]}{rest}"
            if given in weights:
                taken[name] = weights[given]
                used.add(given)
            elif rest.startswith("bias") and not any(
                other.startswith("bias") for other in _below(weights, prefixes[layer])
            ):
                taken[name] = torch.zeros_like(parameter)
            else:
                raise UserError(f"{where}: has no {given}, which {_shape_of(network)} has; {_HOW}")
        more = [name for name in _below(weights, prefixes["recurrent"]) if _OF_A_LAYER.fullmatch(name)]
        left = [name for name in more if f"{prefixes['recurrent']}{name}" not in used]
        if left:
            raise UserError(
                f"{where}: {prefixes['recurrent']}{left[0]} has no place in {_shape_of(network)}; {_HOW}"
            )
    for name, value in taken.items():
        if value.shape != own[name].shape:
            raise UserError(
                f"{where}: {name} would be {tuple(value.shape)}, but {_shape_of(network)} has"
                f" {tuple(own[name].shape)}; {_HOW}"
            )
        if not value.isfinite().all():
            raise UserError(f"{where}: holds values that are not finite numbers, for {name}")
    if order is not None:
        for name in ("classifier.weight", "classifier.bias"):
            taken[name] = taken[name][torch.as_tensor(list(order))]
    network.load_state_dict({name: value.to(own[name]) for name, value in taken.items()})
    return [name for name in weights if name not in used and "signal_statistics" not in name]


@dataclass(frozen=True)
class SavedWeights:
    """Weights as a file has them.

    Attributes:
        path: the file.
        by_name: the weights.
        sha256: the first 12 hexadecimal digits of the file's digest.
    """

    path: Path
    by_name: Mapping[str, Tensor]
    sha256: str

    @classmethod
    def read(cls, path: str | Path) -> "SavedWeights":
        """Read a file as :func:`read_state_dict` does; the name of a packaged network will do as well.

        Raises:
            UserError: the file is missing, cannot be read, or holds no weights.
        """
        weights, found = read_state_dict(path), find_checkpoint(path)
        with found.open("rb") as file:
            return cls(found, weights, hashlib.file_digest(file, "sha256").hexdigest()[:12])


def begin_with(spotter: KeywordSpotter, weights: SavedWeights, **layers: Any) -> list[str]:
    """Give an untrained spotter weights from a file, and note in its trainings where they come from.

    Args:
        spotter: the spotter.
        weights: of a file.
        **layers: ``recurrent``, ``classifier`` and ``order`` of :func:`take_weights`.

    Returns:
        The names of weights that were not needed.

    Raises:
        UserError: the weights do not fit.
    """
    left = take_weights(spotter.network, weights.by_name, **layers, where=str(weights.path))
    spotter.trainings = [{"weights.file": weights.path.name, "weights.sha256": weights.sha256}]
    return left


_HOW = "give model.network.cell, .units, .layers and .bidirectional as they were in training, and the same features"


def _shape_of(network: KeywordNetwork) -> str:
    settings = network.settings
    directions = "bidirectional " if settings.bidirectional else ""
    return (
        f"a {directions}{settings.cell.upper()} of {settings.layers} x {settings.units} units on {network.n_features}"
        " features"
    )


def _below(weights: Mapping[str, Tensor], prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in weights if name.startswith(prefix)]


def _prefix_of_recurrent(weights: Mapping[str, Tensor], given: str | None, where: str) -> str:
    ending = "weight_ih_l0"
    found = [name.removesuffix(ending) for name in weights if name == ending or name.endswith(f".{ending}")]
    return _the_one(found, given, "recurrent layers", "recurrent", where)


def _prefix_of_linear(
    weights: Mapping[str, Tensor], given: str | None, network: KeywordNetwork, where: str
) -> str:
    shape = network.classifier.weight.shape
    found = [
        name.removesuffix("weight")
        for name, value in weights.items()
        if name.endswith(".weight") and (value.shape == shape or given is not None)
    ]
    return _the_one(
        found, given, f"linear layers of {shape[1]} inputs and {shape[0]} outputs", "classifier", where
    )


def _the_one(found: Sequence[str], given: str | None, what: str, option: str, where: str) -> str:
    names = ", ".join(prefix.removesuffix(".") or "(no name)" for prefix in found) or "none"
    if given is not None:
        prefix = f"{given.removesuffix('.')}." if given else ""
        if prefix not in found:
            raise UserError(f"{where}: {option} is {given!r}, but the {what} there are {names}")
        return prefix
    if len(found) != 1:
        raise UserError(
            f"{where}: has {len(found)} {what} ({names}): give --{option} NAME, what stands before its weights"
        )
    return found[0]
