"""Which hardware the noise that is missing at inference can be made up for."""

from asr_dni.errors import UserError
from asr_dni.noise.hardware import Hardware
from asr_dni.noise.output import Gaussian


def gaussian_alone(hardware: Hardware) -> bool:
    """Return whether all there is is one Gaussian noise, alike on all outputs of matrices that are whole."""
    whole = not hardware.weight and hardware.dac is None and hardware.adc is None and hardware.tile is None
    if not whole or len(hardware.output) != 1:
        return False
    model = hardware.output[0]
    return isinstance(model, Gaussian) and model.per == "tensor"


def check_compensation(trained: Hardware, hardware: Hardware) -> None:
    """Check that the variance of the noise that is missing is known: that of Gaussians on outputs.

    Args:
        trained: what a network was trained on.
        hardware: what it runs on.

    Raises:
        UserError: either is more, or something else.
    """
    for where, its in (("the training's hardware", trained), ("this hardware", hardware)):
        if not gaussian_alone(its):
            raise UserError(
                f"compensation is for Gaussian noise on outputs alone, of one variance in a layer; {where} is not that:"
                " leave the compensation out"
            )
