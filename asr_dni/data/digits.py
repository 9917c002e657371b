"""Handwritten digits, row by row: a task that is not speech."""

import dataclasses
import hashlib
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from asr_dni.data.in_memory import Examples, InMemoryData
from asr_dni.errors import UserError
from asr_dni.philox import derive_key, uniform

FIRST_OF_FORM = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667)
"""Where the forms begin: the data set holds one sequence of 130 digits, the preprinted form's, 14 times over, each
time with some of them left out."""

_FORMS = {"train": (0, 9), "validation": (9, 11), "test": (11, 14)}
_N_IMAGES, _SIZE = 1797, 8
_DIGEST = "cefd67273315516d"


@dataclasses.dataclass(frozen=True)
class DeformationSettings:
    """How training images are deformed at random; every image gets new values in every epoch.

    Args:
        shift: largest shift in pixels, in either direction and along either axis; 0 for none.
        rotation: largest rotation about the centre in degrees, to either side; 0 for none.
        slant: largest slant, columns per row, to either side; 0 for none.
        scale: largest factor by which width and height grow or shrink, each on its own; 1 for none.

    Raises:
        UserError: a value out of range; the line names the key.
    """

    shift: float = 0.0
    rotation: float = 0.0
    slant: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        for key, lowest, below in (("shift", 0, 8), ("rotation", 0, 180), ("slant", 0, 2), ("scale", 1, 4)):
            if not lowest <= getattr(self, key) < below:
                raise UserError(
                    f"deformation.{key}: {getattr(self, key)} is not valid; give {lowest} (none) to below {below}"
                )

    @property
    def changes(self) -> bool:
        """Whether anything is deformed."""
        return (self.shift, self.rotation, self.slant, self.scale) != (0, 0, 0, 1)


def deform(pixels: Tensor, settings: DeformationSettings, draws: Tensor) -> Tensor:
    """Move, turn, slant and stretch images, with linear interpolation between pixels; outside is paper.

    Args:
        pixels: ``(N, H, W)``.
        settings: the largest deformations.
        draws: ``(N, 6)`` in [-1, 1]: the part of the largest one, of shift along rows and columns, rotation, slant,
            and the logarithms of height and width.

    Returns:
        ``(N, H, W)``; an image depends on its own draws alone.
    """
    _, height, width = pixels.shape
    shift_y, shift_x = draws[:, :2, None, None].unbind(1)
    y, x = torch.meshgrid(
        torch.arange(height, device=pixels.device, dtype=pixels.dtype) - (height - 1) / 2,
        torch.arange(width, device=pixels.device, dtype=pixels.dtype) - (width - 1) / 2,
        indexing="ij",
    )
    # From a pixel of the result back to the place in the image that it shows.
    place = torch.stack((y - shift_y * settings.shift, x - shift_x * settings.shift), 1)
    y, x = torch.einsum("nij,njhw->nihw", source_maps(settings, draws), place).unbind(1)
    grid = torch.stack((x * 2 / width, y * 2 / height), -1)
    return grid_sample(pixels[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0]


def source_maps(settings: DeformationSettings, draws: Tensor) -> Tensor:
    """Return how a deformation leads from the result back to the image, shift aside.

    Args:
        settings: the largest deformations.
        draws: ``(N, 6)``, see :func:`deform`.

    Returns:
        ``(N, 2, 2)`` matrices of places as row and column from the centre.
    """
    _, _, turn, slant, log_height, log_width = draws.unbind(1)
    angle, slope = turn * math.radians(settings.rotation), slant * settings.slant
    stretch = math.log(settings.scale)
    rows = torch.stack((angle.cos(), -angle.sin()), -1)
    columns = torch.stack((angle.sin(), angle.cos()), -1) - slope[:, None] * rows
    stretches = (torch.stack((log_height, log_width), -1) * stretch).exp()
    return stretches[:, :, None] * torch.stack((rows, columns), 1)


_NO_DEFORMATION = DeformationSettings()


class DigitsData(InMemoryData):
    """Images of handwritten digits as sequences: a row of eight pixels at each of eight steps, from top to bottom.

    The data are those that come with scikit-learn (``sklearn.datasets.load_digits``), 1,797 images of 8 x 8 pixels
    with values from 0 to 16: the test part of the UCI set "Optical Recognition of Handwritten Digits" (E. Alpaydin and
    C. Kaynak, 1998). Nothing is downloaded.

    **Splits.** 13 people wrote this part; who wrote which image is not recorded. But everybody filled in the same
    preprinted form, and the labels show where each of the 14 forms begins (:data:`FIRST_OF_FORM`). In the order of the
    file forms 1 to 9 are for training (1,157 images), 10 and 11 for validation (258), 12 to 14 for test (382). So no
    form is in two splits, and hardly any writer. A random split would put every writer into all of them, and give
    higher accuracies.

    Features are normalised with one mean and one standard deviation, those of all pixels of the training split (columns
    at the edge hold next to no ink: a standard deviation of their own would blow up the little there is). They are part
    of every checkpoint.

    Args:
        deformation: what happens to training images.
        batch_size: images in a batch (per process).
        seed: of the order of the images and of their deformation.
        normalize: whether features are normalised; otherwise they are the pixels, 0 to 16.

    Raises:
        UserError: a setting that is not valid.
    """

    identity = "digits of scikit-learn (UCI test part), row by row"

    deformation: DeformationSettings

    def __init__(
        self,
        deformation: DeformationSettings = _NO_DEFORMATION,
        batch_size: int = 64,
        seed: int = 0,
        normalize: bool = True,
    ) -> None:
        super().__init__(batch_size, seed, normalize, deformation=deformation)

    @property
    def label_names(self) -> list[str]:
        """The digits, in the order of the network's outputs."""
        return [str(digit) for digit in range(10)]

    def protocol_of(self, split: str) -> str:
        """Return what an accuracy on ``split`` has to be called by.

        Raises:
            UserError: there is no such split.
        """
        if split not in _FORMS:
            raise UserError(f"split: {split!r} is not valid; give {', '.join(_FORMS)}")
        first, after = _FORMS[split]
        return f"{self.identity}, forms {first + 1} to {after} of {len(FIRST_OF_FORM)}"

    def examples(self) -> dict[str, Examples]:
        """Return the images of each split, ``(n, 8, 8)`` from 0 (paper) to 16 (ink), and the digits that they are.

        Raises:
            UserError: scikit-learn has other images.
        """
        pixels, labels = _load()
        ends = (*FIRST_OF_FORM, _N_IMAGES)
        made: dict[str, Examples] = {}
        for split, (first, after) in _FORMS.items():
            chosen = slice(ends[first], ends[after])
            names = [f"digits/{index:04d}" for index in range(_N_IMAGES)[chosen]]
            made[split] = Examples(pixels[chosen], labels[chosen], names)
        return made

    def augment(self, features: Tensor, clip_ids: Tensor, epoch: int) -> Tensor:
        """Deform images ``(N, 8, 8)``, each with new values in every epoch."""
        if not self.deformation.changes:
            return features
        draws = 2 * uniform(derive_key(self.seed, "deformation", epoch), clip_ids, 6) - 1
        return deform(features, self.deformation, draws)


def _load() -> tuple[Tensor, Tensor]:
    """Return all 1,797 images and their digits."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    found = hashlib.blake2b(pixels.astype(np.uint8).tobytes(), digest_size=8)
    found.update(labels.astype(np.uint8).tobytes())
    if found.hexdigest() != _DIGEST:
        raise UserError(
            "sklearn.datasets.load_digits: these are not the 1,797 images that the splits were made for; "
            "install another version of scikit-learn"
        )
    images = torch.from_numpy(pixels).float().reshape(_N_IMAGES, _SIZE, _SIZE)
    return images, torch.from_numpy(labels).long()
