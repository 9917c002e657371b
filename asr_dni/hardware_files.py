"""Hardware as configurations have it: plain settings, a name in ``conf/hardware``, or a YAML file of one's own."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from asr_dni.configuration import read_layers
from asr_dni.errors import UserError
from asr_dni.named_configurations import FOLDER, find_configuration
from asr_dni.noise import MVM_SITES, Arrays, Hardware, Noise, Realisation, Scale, Site, Strength

_FOLDER = "hardware"


def hardware_names() -> list[str]:
    """Return the names of the hardware that comes with the project."""
    return sorted(path.stem for path in (FOLDER / _FOLDER).glob("*.yaml"))


def read_hardware(given: object, where: str = "hardware") -> Hardware:
    """Return the hardware that is meant.

    Args:
        given: one of :func:`hardware_names`, a YAML file's path, or plain settings, see
            :meth:`asr_dni.noise.Hardware.from_settings`. A file may name others that it starts from (``layers``).
        where: what messages call it.

    Raises:
        UserError: there is no such file or name, or the settings are not valid.
    """
    if isinstance(given, Mapping):
        return Hardware.from_settings(given, where)
    if not isinstance(given, str) or not given:
        raise UserError(
            f"{where} is {given!r}: give a name ({', '.join(hardware_names())}), a file, or settings"
        )
    try:
        path = find_configuration(given, _FOLDER)
    except UserError as error:
        known = ", ".join(hardware_names())
        raise UserError(f"{where}: {error}; hardware that comes along: {known}") from None
    settings: dict[str, object] = {}
    for layer in read_layers(path):
        settings |= layer
    return Hardware.from_settings(settings, f"{where} {path}")


def find_name(settings_beside: Mapping[str, Any], strength: Strength) -> str | None:
    """Return the name of the hardware that comes with the project and is this one, but for a strength, if any is.

    Args:
        settings_beside: what the hardware is at all values of the strength, see
            :meth:`asr_dni.noise.Hardware.settings_beside`.
        strength: which of its numbers.
    """
    for name in hardware_names():
        hardware = _named(name)
        if hardware.has(strength) and hardware.settings_beside(strength) == settings_beside:
            return name
    return None


@cache
def _named(name: str) -> Hardware:
    return read_hardware(name)


def noise_of(
    hardware: object | None,
    scale: Scale = "absolute",
    sites: Sequence[Site] = MVM_SITES,
    arrays: Arrays = "joint",
    seed: int = 0,
    chip: int = 0,
    prefix: str = "",
) -> Noise:
    """Return the noise that settings mean: Gaussian in the short form, or on any other hardware.

    Args:
        hardware: see :func:`read_hardware`; ``None``: Gaussian noise on outputs, of which the next three say all.
        scale: what sigma is measured in.
        sites: where the noise enters.
        arrays: whether W_ih and W_hh lie on one array.
        seed: of the noise.
        chip: which of the chips, where weights differ from chip to chip.
        prefix: what messages put before the names of these settings, such as ``--``.

    Raises:
        UserError: a setting is not valid, or scale, sites or arrays are given beside a hardware, which has its own.
    """
    realisation = Realisation(seed=seed, chip=chip)
    if hardware is None:
        return Noise.of(Noise(scale=scale, sites=tuple(sites), arrays=arrays).hardware, realisation)
    default = {"scale": scale == "absolute", "sites": tuple(sites) == MVM_SITES, "arrays": arrays == "joint"}
    beside = [name for name, is_default in default.items() if not is_default]
    if beside:
        raise UserError(f"{prefix}{beside[0]} is given beside {prefix}hardware: give it in the hardware")
    return Noise.of(read_hardware(hardware, f"{prefix}hardware"), realisation)
