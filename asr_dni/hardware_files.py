"""Hardware as configurations have it: plain settings, a name in ``conf/hardware``, or a YAML file of one's own."""

from collections.abc import Mapping

from asr_dni.configuration import read_layers
from asr_dni.errors import UserError
from asr_dni.named_configurations import FOLDER, find_configuration
from asr_dni.noise import Hardware

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
