"""The device that a network runs on."""

import torch

from asr_dni.errors import UserError


def choose_device(name: str | torch.device) -> torch.device:
    """Return a device that works; ``auto`` is a GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown, or not there
        raise UserError(f"device {str(name)!r} cannot be used here: give auto, cpu or cuda") from error
    return device
