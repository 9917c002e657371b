"""What the page *try* computes: one clip under a hardware of a strength, with the network really run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asr_dni.dashboard.listening import Uploads, clip_of_upload
from asr_dni.dashboard.networks import Network
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.axes import usual_levels, usual_strength
from asr_dni.hardware_files import hardware_names, read_hardware
from asr_dni.noise import Hardware, Noise, Realisation, Strength
from asr_dni.plotting import Figure

if TYPE_CHECKING:
    from asr_dni.data.split_clips import SplitClip
    from asr_dni.inference.over_time import DecisionOverTime

GAUSSIAN, AS_TRAINED = "sigma", "as_trained"
"""Names of what is no hardware of ``conf/hardware``: noise of a sigma as in the papers, and that of the training."""

MOST_DRAWS = 32
DRAWS = 8


@dataclass(frozen=True)
class Dial:
    """The strength of a hardware that can be moved, as a slider has it.

    Attributes:
        strength: which of the hardware's numbers.
        low: its lowest value.
        high: its highest.
        value: at first.
        logarithmic: whether the slider moves its logarithm.
        step: of the slider; of a whole number 1.
        marks: values with what is written at them.
    """

    strength: Strength
    low: float
    high: float
    value: float
    logarithmic: bool = False
    step: float = 0.05
    marks: Mapping[float, str] = field(default_factory=dict)

    def place(self, value: float) -> float:
        """Return where the slider is at a value."""
        inside = min(max(value, self.low), self.high)
        return math.log10(inside) if self.logarithmic else inside

    def at(self, place: float) -> float:
        """Return the value at a place of the slider, of four digits."""
        value = 10.0**place if self.logarithmic else place
        return float(f"{min(max(value, self.low), self.high):.4g}")

    @property
    def name(self) -> str:
        """What the strength is called on the page."""
        if self.strength.path == "weight.time":
            return "time since programming"
        return "σ" if self.strength.is_sigma else self.strength.symbol

    def text(self, value: float) -> str:
        """Return a value as people read it."""
        if self.strength.path.endswith(".time"):
            return duration_text(value)
        if self.strength.path.startswith("weight.stuck"):
            return f"{100 * value:.3g} %"
        return f"{value:.4g}"


def duration_text(seconds: float) -> str:
    """Return a time as people read it.

    >>> duration_text(1.0), duration_text(7200.0), duration_text(86400.0 * 3)
    ('1 s', '2 h', '3 days')
    """
    for unit, length in (("years", 365 * 86400.0), ("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            number = f"{seconds / length:.3g}"
            return f"{number} {unit.removesuffix('s') if number == '1' and unit[-1] == 's' else unit}"
    return f"{seconds:.3g} s"


def hardware_choices(network: Network) -> dict[str, str]:
    """Return the hardware that a network can be tried on: what it is called in links, and on the page."""
    choices = {GAUSSIAN: "Gaussian noise on outputs"}
    trained = network.spotter.model.training_noise.hardware
    if trained != Noise().hardware and trained != Noise(sigma=1.0).hardware:
        choices[AS_TRAINED] = "as in its training"
    return choices | {name: name.replace("_", " ") for name in hardware_names() if name != "gaussian"}


def hardware_of(name: str, network: Network) -> Hardware:
    """Return the hardware of a name.

    Raises:
        UserError: there is none of this name.
    """
    if name == GAUSSIAN:
        return Noise(sigma=1.0).hardware
    if name == AS_TRAINED:
        return network.spotter.model.training_noise.hardware
    if name not in hardware_names():
        raise UserError(f"hardware {name!r} is none of those that come along: {', '.join(hardware_names())}")
    return read_hardware(name)


def dial_of(name: str, network: Network) -> Dial | None:
    """Return the strength of a hardware that can be moved; None: it has none.

    Raises:
        UserError: there is no hardware of this name.
    """
    hardware = hardware_of(name, network)
    model = network.spotter.model
    try:
        strength = model.strength if name == AS_TRAINED else usual_strength(hardware)
        levels = usual_levels(hardware, strength)
    except UserError:
        return None
    strength = hardware.axis(strength)
    if strength.path.endswith(".time"):
        marks = {level: duration_text(level) for level in levels}
        return Dial(strength, min(levels), max(levels), hardware.value(strength), True, 0.02, marks)
    marks = {level: f"{level:g}" for level in levels}
    if hardware.counts(strength):
        return Dial(strength, min(levels), max(levels), hardware.value(strength), step=1.0, marks=marks)
    value = 2.0 if name == GAUSSIAN else hardware.value(strength)
    high = max(max(levels), value)
    return Dial(strength, 0.0, high, value, step=high / 80, marks=marks)


@dataclass(frozen=True)
class Trial:
    """What is tried on a network.

    Attributes:
        clip: position in the test split.
        upload: identity of an uploaded recording, in its place; "" for none.
        hardware: see :func:`hardware_choices`.
        value: of the strength; None: what the hardware comes with.
        seed: of the noise.
        draws: passes.
    """

    clip: int = 0
    upload: str = ""
    hardware: str = GAUSSIAN
    value: float | None = None
    seed: int = 0
    draws: int = DRAWS

    def noise(self, network: Network) -> Noise:
        """Return hardware and seed.

        Raises:
            UserError: there is no such hardware, or its strength cannot have the value.
        """
        hardware = hardware_of(self.hardware, network)
        dial = dial_of(self.hardware, network)
        if dial is not None:
            value = dial.value if self.value is None else self.value
            whole = hardware.counts(dial.strength)
            hardware = hardware.at(round(value) if whole else value, dial.strength)
        return Noise.of(hardware, Realisation(seed=self.seed))

    def hears(self, network: Network, uploads: Uploads) -> "SplitClip":
        """Return the clip.

        Raises:
            UserError: there is none there, or the recordings are gone.
        """
        if self.upload:
            return clip_of_upload(uploads.get(self.upload), network)
        clips = network.clips
        if not 0 <= self.clip < len(clips):
            raise UserError(f"the test split has {len(clips)} clips: there is no clip {self.clip}")
        return clips[self.clip]


@dataclass(frozen=True)
class Answer:
    """What a network says in a trial.

    Attributes:
        clip: that it heard.
        decision: as it comes about, in every pass.
        chips: whether the passes are chips rather than draws of the noise.
        under: hardware, its strength and the seed, in words.
    """

    clip: "SplitClip"
    decision: "DecisionOverTime"
    chips: bool
    under: str

    @property
    def passes(self) -> str:
        """How many passes there were, in words."""
        number = len(self.decision.posteriors)
        if number == 1:
            return "one pass: all would be the same"
        return f"{number} {'chips' if self.chips else 'draws of the noise'}"

    @property
    def votes(self) -> str:
        """What the passes decide on, in words."""
        return ", ".join(f"{label} {count}" for label, count in self.decision.votes.items())

    @property
    def right(self) -> bool | None:
        """Whether the decision is the clip's label; None where that is not known."""
        return None if self.clip.label is None else self.decision.label == self.clip.label

    def figure(self, seconds: float | None, form: str = "lines") -> Figure:
        """Specify the figure of the posteriors over time.

        Args:
            seconds: length of the clip; None: the data are no recordings.
            form: see :func:`~asr_dni.inference.figures.decision_figure`.
        """
        from asr_dni.inference.figures import decision_figure

        label = f", which is {self.clip.label!r}" if self.clip.label else ""
        title = f"Posteriors on {self.clip.name}{label}"
        drawn = "colours: their mean" if form == "map" else "lines: their mean, bands: lowest to highest"
        band = "" if len(self.decision.posteriors) == 1 else f"; {drawn}"
        what = "After each moment: what would be decided, were the clip to end there."
        note = f"{what} {self.under}; {self.passes}{band}."
        return decision_figure(self.decision, seconds, title, note, form)


def run_trial(trial: Trial, network: Network, uploads: Uploads) -> Answer:
    """Run a network on one clip; the same trial gives the same answer.

    Raises:
        UserError: the clip is not there, or the hardware cannot be that of this network.
    """
    from asr_dni.inference.over_time import decide_over_time

    noise = trial.noise(network)
    with network.lock:
        clip = trial.hears(network, uploads)
        decision = decide_over_time(network.spotter, clip.features, noise, trial.draws, clip.clip_id)
    dial = dial_of(trial.hardware, network)
    under = hardware_choices(network).get(trial.hardware, trial.hardware)
    if dial is not None:
        under += f", {dial.name} {dial.text(noise.hardware.value(dial.strength))}"
    return Answer(clip, decision, noise.hardware.has_chips, f"{under}; seed {trial.seed}")


def seconds_of(network: Network) -> float | None:
    """Return how long a clip of a network is; None: it was not trained on recordings."""
    features = network.spotter.features
    return None if features is None else features.clip_seconds


def heard_figure(network: Network, clip: "SplitClip") -> Figure:
    """Specify the figure of what a network gets of a clip: samples, where there are some, and its features."""
    from asr_dni.inference.figures import clip_figure, features_panel, waveform_panel

    features = network.spotter.features
    panels = []
    if clip.samples is not None and clip.sample_rate is not None:
        panels.append(waveform_panel(clip.samples, clip.sample_rate))
    front_end = None if features is None else features.front_end
    normalised = features is None or features.normalize
    panels.append(features_panel(clip.features, seconds_of(network), front_end, normalised))
    return clip_figure(panels, f"What the network gets of {clip.name}")
