"""Which strength of a hardware is looked at where none is named, and at which values."""

from asr_dni.errors import UserError
from asr_dni.noise import SIGMA, AgingDevice, Gaussian, GaussianWeights, Hardware, Strength, StuckCells

SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
"""Of additive Gaussian noise, in pre-activation units."""

TIMES = {
    "1 s": 1.0,
    "1 min": 60.0,
    "1 hour": 3600.0,
    "1 day": 86400.0,
    "1 month": 30 * 86400.0,
    "1 year": 365 * 86400.0,
}
"""After programming, in seconds."""

_TIME, _STUCK, _WEIGHTS = Strength("weight.time"), Strength("weight.stuck_at_zero"), Strength("weight.sigma")
_SHARES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)
_RELATIVE = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_MULTIPLES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
_BITS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
_COLUMNS = (32.0, 64.0, 128.0, 256.0, 512.0)


def usual_strength(hardware: Hardware) -> Strength:
    """Return the strength that says most of a hardware.

    It is the time since programming where devices age, the share that is stuck of stuck cells, the sigma of what has
    one on outputs or weights, the bits of a converter.

    Raises:
        UserError: it has no number that could be an axis.
    """
    if any(isinstance(model, AgingDevice) for model in hardware.weight):
        return _TIME
    if any(isinstance(model, StuckCells) for model in hardware.weight):
        return _STUCK
    candidates = (SIGMA, _WEIGHTS, Strength("adc.bits"), Strength("dac.bits"))
    found = next((strength for strength in candidates if hardware.has(strength)), None)
    if found is None:
        known = ", ".join(hardware.strengths()) or "it has none"
        raise UserError(f"which strength of the hardware is to be swept is not clear: give one of {known}")
    return found


def usual_levels(hardware: Hardware, strength: Strength) -> tuple[float, ...]:
    """Return values of a strength to look at.

    Raises:
        UserError: the hardware has no such strength, or nothing is known of its usual values.
    """
    value, name = hardware.value(strength), strength.path.rpartition(".")[2]
    if name == "time":
        known = [its.times for its in hardware.weight if isinstance(its, AgingDevice)]
        return tuple(time for time in TIMES.values() if all(low <= time <= high for low, high in known))
    if name.startswith("stuck_at"):
        return _SHARES
    if name == "bits":
        return _BITS
    if name == "tile":
        return _COLUMNS
    if name == "sigma" and strength.path.startswith("weight"):
        gaussian = any(isinstance(model, GaussianWeights) for model in hardware.weight)
        return _RELATIVE[:-2] if gaussian else _MULTIPLES
    if name == "sigma" and strength.is_sigma:
        absolute = isinstance(hardware.output[0], Gaussian) and hardware.scale == "absolute"
        return SIGMAS if absolute else _RELATIVE
    raise UserError(
        f"there are no usual values of {strength.path} (here {value:g}): give some, such as --strengths {value:g}"
    )
