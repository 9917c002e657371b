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
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        there = ["auto", "cpu", *(["cuda"] if gpus else []), *gpus]
        raise UserError(
            f"device {str(name)!r} cannot be used here: give {', '.join(there[:-1])} or {there[-1]}"
        ) from error
    return device
