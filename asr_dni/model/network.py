"""The keyword spotter's network: convolutions or none, noisy recurrent layers, pooling, a noisy classifier."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from asr_dni.bounds import at_most
from asr_dni.errors import UserError
from asr_dni.model.convolutions import ConvolutionalLayers, ConvolutionSettings
from asr_dni.model.pooling import FrameWeights, weighted_mean
from asr_dni.nn import (
    CELLS,
    CounterDropout,
    NoisyGRU,
    NoisyLinear,
    NoisyLSTM,
    NoisyRecurrent,
    NoisyRNN,
    RecurrentCell,
    repeat_network,
    snr_db,
)
from asr_dni.nn.precision import ProductsSetting, check_products
from asr_dni.noise import Hardware, Noise, NoisyModule

Pooling: TypeAlias = Literal["last", "mean", "max", "frame", "attention"]
Initialisation: TypeAlias = Literal["uniform", "orthogonal"]

_OF_TORCH: dict[str, Callable[..., NoisyRNN | NoisyLSTM | NoisyGRU]] = {
    "rnn": NoisyRNN,
    "lstm": NoisyLSTM,
    "gru": NoisyGRU,
}


def cell_names() -> tuple[str, ...]:
    """Return the cells that a network may have: all of :data:`asr_dni.nn.CELLS`; of the vanilla RNNs that with tanh."""
    return ("rnn", *(name for name in CELLS if not name.startswith("rnn_")))


def equations_of(cell: str) -> RecurrentCell:
    """Return the equations of a cell, one of :func:`cell_names`."""
    return CELLS["rnn_tanh" if cell == "rnn" else cell]


_MOST_UNITS = 16_384
_MOST_LAYERS = 64
_MOST_INPUTS = 65_536
_MOST_WEIGHTS = 2**28
"""1 GiB of them; the largest published keyword spotters have a few million."""


@dataclass(frozen=True)
class NetworkSettings:
    """What the network is made of.

    Args:
        cell: rnn (tanh), lstm, gru, lstm_peephole, mgu (minimal gated unit) or fastgrnn.
        units: units per layer and direction.
        layers: recurrent layers, one on the other.
        bidirectional: whether each layer runs in both directions.
        dropout: probability with which a layer's outputs are dropped in training, the last layer's too.
        pooling: how the outputs of T frames become one decision: ``last`` takes the last frame's, ``mean`` and ``max``
            pool them over time, before the classifier; ``frame`` classifies every frame and averages the logits, so
            that the classifier's noise is averaged as well; ``attention`` does so with a learned weight of each frame,
            which is digital.
        input_gain: the initial weights of the first layer's inputs, in multiples of torch's initialisation. Under noise
            of a fixed size small weights carry no signal, and training is slow to begin.
        inner_gain: the same for the inputs of further layers.
        recurrent_gain: the same for the recurrent weights; of orthogonal ones all singular values.
        recurrent_initialisation: of the recurrent weights: ``uniform``, torch's, or ``orthogonal`` for each gate
            (A. Saxe et al., arXiv:1312.6120), which neither shrinks nor blows up what a vanilla RNN carries on.
        output_gain: the same for the classifier's weights.
        forget_bias: added to the initial bias of an LSTM's forget gates; cells that have none leave it.
        projection: numbers that an LSTM's outputs are projected to, and fed back as, per layer and direction; 0: no
            projection.
        convolutions: what there is in front of the recurrent layers, a CRNN then; null: nothing.
        products: the precision of the factors in the recurrent layers' products with matrices: float32, bfloat16, or
            auto (bfloat16 where this processor has instructions that make it faster); null: what the environment's
            ASR_DNI_PRODUCTS says, else float32.

    Raises:
        UserError: a value is out of its range.
    """

    cell: str = "lstm"
    units: int = 128
    layers: int = 2
    bidirectional: bool = False
    dropout: float = 0.1
    pooling: Pooling = "frame"
    input_gain: float = 1.0
    inner_gain: float = 1.0
    recurrent_gain: float = 1.0
    recurrent_initialisation: Initialisation = "uniform"
    output_gain: float = 1.0
    forget_bias: float = 1.0
    projection: int = 0
    convolutions: ConvolutionSettings | None = None
    products: ProductsSetting | None = None

    def __post_init__(self) -> None:
        check_products(self.products, "network products")
        if isinstance(self.convolutions, Mapping):
            object.__setattr__(self, "convolutions", ConvolutionSettings(**self.convolutions))
        if self.cell not in cell_names():
            raise UserError(f"network cell is {self.cell!r}: give one of {', '.join(cell_names())}")
        for name in ("units", "layers"):
            if getattr(self, name) < 1:
                raise UserError(f"network {name} is {getattr(self, name)}: give 1 or more")
        at_most("network units", self.units, _MOST_UNITS)
        at_most("network layers", self.layers, _MOST_LAYERS)
        if not 0 <= self.dropout < 1:
            raise UserError(f"network dropout is {self.dropout}: give a probability below 1")
        if self.pooling not in get_args(Pooling):
            *others, last = get_args(Pooling)
            raise UserError(f"network pooling is {self.pooling!r}: give {', '.join(others)} or {last}")
        if self.recurrent_initialisation not in ("uniform", "orthogonal"):
            raise UserError(
                f"network recurrent_initialisation is {self.recurrent_initialisation!r}: give uniform or orthogonal"
            )
        if self.projection and not equations_of(self.cell).projects:
            projecting = ", ".join(name for name in cell_names() if equations_of(name).projects)
            raise UserError(
                f"network projection is {self.projection}: give 0, or a cell that has one ({projecting})"
            )
        if not 0 <= self.projection < self.units:
            raise UserError(
                f"network projection is {self.projection}: give less than units ({self.units}), or 0 (none)"
            )
        for name in ("input_gain", "inner_gain", "recurrent_gain", "output_gain"):
            if not getattr(self, name) > 0:
                raise UserError(f"network {name} is {getattr(self, name)}: give a number above 0")


def _n_weights(settings: NetworkSettings, n_features: int, n_labels: int) -> int:
    """Return the number of a network's weights, without biases, before any is made."""
    directions = 2 if settings.bidirectional else 1
    width = settings.projection or settings.units
    gates = len(equations_of(settings.cell).gates)
    inner = settings.layers - 1
    convolutions = 0
    if settings.convolutions is not None:
        convolutions = settings.convolutions.n_weights(n_features)
        n_features = settings.convolutions.n_outputs(n_features)
    inputs = n_features + inner * directions * width + settings.layers * width
    recurrent = directions * gates * settings.units * inputs
    projected = directions * settings.layers * settings.projection * settings.units
    return convolutions + recurrent + projected + directions * width * n_labels


class KeywordNetwork(NoisyModule):
    """Features in, logits out, under whatever noise is set.

    In a population (:func:`asr_dni.nn.stack_networks`) projections and logits have a leading axis of K networks, and so
    have features, unless the members share them.

    Args:
        settings: what the network is made of.
        n_features: F, features per frame.
        n_labels: C, classes.
    """

    def __init__(self, settings: NetworkSettings, n_features: int, n_labels: int) -> None:
        super().__init__()
        at_most("the network's number of features", n_features, _MOST_INPUTS)
        at_most("the network's number of weights", _n_weights(settings, n_features, n_labels), _MOST_WEIGHTS)
        self.settings, self.n_features = settings, n_features
        self.convolutions: ConvolutionalLayers | None = None
        fed = n_features
        if settings.convolutions is not None:
            self.convolutions = ConvolutionalLayers(settings.convolutions, n_features)
            fed = self.convolutions.n_outputs
        projection = {"proj_size": settings.projection} if settings.projection else {}
        self.recurrent = _OF_TORCH.get(settings.cell, partial(NoisyRecurrent, settings.cell))(
            fed,
            settings.units,
            num_layers=settings.layers,
            bidirectional=settings.bidirectional,
            dropout=settings.dropout if settings.layers > 1 else 0.0,
            products=settings.products,
            **projection,
        )
        self.dropout = CounterDropout(settings.dropout)
        self._width = settings.projection or settings.units
        width = self._width * (2 if settings.bidirectional else 1)
        self.classifier = NoisyLinear(width, n_labels)
        self.frame_weights = FrameWeights(width) if settings.pooling == "attention" else None
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        settings = self.settings
        equations = equations_of(settings.cell)
        for name, parameter in self.recurrent.named_parameters():
            if name.startswith("weight_ih"):
                parameter.mul_(settings.input_gain if "_l0" in name else settings.inner_gain)
            elif name.startswith("weight_hh"):
                if settings.recurrent_initialisation == "orthogonal":
                    for block in torch.split(parameter, settings.units):
                        nn.init.orthogonal_(block)
                parameter.mul_(settings.recurrent_gain)
            elif name.startswith("bias_hh") and equations.forget_gate is not None:
                gate = equations.gates.index(equations.forget_gate)
                parameter[settings.units * gate : settings.units * (gate + 1)] += settings.forget_bias
        self.classifier.weight *= settings.output_gain

    def project(self, features: Tensor) -> Tensor:
        """Do the noise-free work, once for any number of noisy passes: convolutions and first input projection.

        Args:
            features: ``(N, T, F)``; for a population ``(K, N, T, F)``, or ``(N, T, F)`` for all members.

        Returns:
            ``(T, N, directions * gates * units)``, the first layer's clean input projection; of a population
            ``(K, T, N, directions * gates * units)``. T may be smaller behind convolutions.
        """
        return self.recurrent.input_projection(self.frames(features).transpose(-3, -2))

    def frames(self, features: Tensor) -> Tensor:
        """Return what clean convolutions make of features; without convolutions that is the features themselves.

        Args:
            features: ``(N, T, F)``; for a population ``(K, N, T, F)``, or ``(N, T, F)`` for all members.

        Returns:
            ``(N, T, F)``, behind convolutions of other T and F, and of a population ``(K, N, T, F)``.
        """
        if self.convolutions is None:
            return features
        with self.convolutions.under(Noise()):
            frames: Tensor = self.convolutions(features)
        return frames.transpose(-3, -2)

    def frames_exact(self, hardware: Hardware) -> bool:
        """Return whether :meth:`frames` may be taken once for all passes on a hardware."""
        return not self._convolves_on(hardware)

    def answer(self, frames: Tensor) -> Tensor:
        """Return logits ``(N, C)``, of a population ``(K, N, C)``, under the noise in force.

        Args:
            frames: what :meth:`frames` gave; a population takes those of one network, ``(N, T, F)``, for all members.

        Raises:
            UserError: the hardware in force makes the convolutions inexact.
        """
        self._check_front()
        outputs, _ = self.recurrent(frames.transpose(-3, -2))
        return self._decide(outputs)

    def _check_front(self) -> None:
        if any(self._convolves_on(noise.hardware) for noise in self._noises):
            raise UserError(
                "clean convolutions of the features were given, but on the hardware in force they are not: give the"
                " features"
            )

    def inputs_exact(self, hardware: Hardware) -> bool:
        """Return whether :meth:`project` may be done once for all passes on a hardware; else they take all of it."""
        return hardware.inputs_exact and not self._convolves_on(hardware)

    def _convolves_on(self, hardware: Hardware) -> bool:
        return self.convolutions is not None and hardware.on_at("convolution")

    def classify(self, projection: Tensor) -> Tensor:
        """Return logits ``(N, C)``, of a population ``(K, N, C)``, under the noise in force.

        Args:
            projection: what :meth:`project` gave.

        Raises:
            UserError: the hardware in force makes more of the features than their clean projection, see
                :meth:`inputs_exact`.
        """
        return self._decide(self._recur_projected(projection))

    def _recur_projected(self, projection: Tensor) -> Tensor:
        self._check_front()
        state = self.recurrent.initial_state(projection.shape[-2], projection)
        outputs, _ = self.recurrent.forward_projected(projection, state)
        return outputs

    def _decide(self, outputs: Tensor) -> Tensor:
        """Return logits for the recurrent layers' outputs ``(T, N, directions * units)``."""
        if self.settings.pooling in ("frame", "attention"):
            logits, scores = self._logits_of_frames(outputs)
            return logits.mean(-3) if scores is None else weighted_mean(logits, scores)
        if self.settings.pooling == "last":
            # In the reverse direction the output at the first frame is the last one computed.
            forward, backward = outputs[..., -1, :, :], outputs[..., 0, :, :]
            units = self._width
            pooled = (
                torch.cat((forward[..., :units], backward[..., units:]), -1)
                if self.settings.bidirectional
                else forward
            )
        elif self.settings.pooling == "mean":
            pooled = outputs.mean(-3)
        else:
            pooled = outputs.amax(-3)
        decided: Tensor = self.classifier(self.dropout(pooled))
        return decided

    def _logits_of_frames(self, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits ``(T, N, C)`` of all frames, and scores ``(T, N, 1)`` where frames have weights."""
        classifier: nn.Module = self.classifier
        outputs = self.dropout(outputs)
        scores = None if self.frame_weights is None else self.frame_weights(outputs)
        if isinstance(classifier, NoisyLinear):
            return classifier.over_time(outputs), scores
        return classifier(outputs), scores  # another toolkit's layer, which names no noise by samples

    def _recur(self, features: Tensor) -> Tensor:
        """Return the recurrent layers' outputs ``(T, N, directions * units)``."""
        frames = features.transpose(-3, -2) if self.convolutions is None else self.convolutions(features)
        outputs: Tensor = self.recurrent(frames)[0]
        return outputs

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(N, C)`` for features ``(N, T, F)``; shapes of a population as :meth:`project` has them."""
        return self._decide(self._recur(features))

    def logits_over_time(self, features: Tensor) -> Tensor:
        """Return the logits of the decision after each frame: as if the recurrent layers' outputs ended there.

        The last are those of :meth:`forward`, under a noise whose ``draw`` is given. In a bidirectional network the
        reverse direction has heard the whole clip at every frame.

        Args:
            features: ``(N, T, F)``; of a population as :meth:`project` has them.

        Returns:
            ``(T, N, C)``, of a population ``(K, T, N, C)``. T may be smaller behind convolutions.
        """
        return self._decide_at_each_frame(self._recur(features))

    def classify_over_time(self, projection: Tensor) -> Tensor:
        """Return what :meth:`logits_over_time` does, for what :meth:`project` gave.

        Raises:
            UserError: see :meth:`classify`.
        """
        return self._decide_at_each_frame(self._recur_projected(projection))

    def _decide_at_each_frame(self, outputs: Tensor) -> Tensor:
        n_frames = outputs.shape[-3]
        ends = range(1, n_frames + 1)
        if self.settings.pooling in ("frame", "attention"):
            logits, scores = self._logits_of_frames(outputs)
            if scores is None:
                sums = logits.cumsum(-3)
                return sums / torch.arange(1, n_frames + 1, device=sums.device).view(-1, 1, 1)
            decided = [weighted_mean(logits[..., :end, :, :], scores[..., :end, :, :]) for end in ends]
            return torch.stack(decided, dim=-3)
        return torch.stack([self._decide(outputs[..., :end, :, :]) for end in ends], dim=-3)

    def repeated(self, number: int) -> "KeywordNetwork":
        """Return so many of this network as a population that shares its weights: for passes that differ in noise."""
        return repeat_network(self, number)

    def snr_db(self, noise: Noise, member: int | None = None) -> float | None:
        """Return the signal-to-noise ratio of a noise in this network, see :func:`asr_dni.nn.snr_db`."""
        return snr_db(self, noise, member)
