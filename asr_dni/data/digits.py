"""Handwritten digits, row by row: a task that is not speech."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from asr_dni.configuration import checked_arguments
from asr_dni.data.batch import Batch, BatchOrder, OrderedLoader
from asr_dni.data.source import SPLITS, Split
from asr_dni.data.splits import SETTINGS_KEY, Selected, SplitData
from asr_dni.data.store import clip_id
from asr_dni.errors import UserError
from asr_dni.philox import derive_key, uniform

FIRST_OF_FORM = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667)
"""Where the forms begin: the data set holds one sequence of 130 digits, the preprinted form's, 14 times over, each
time with some of them left out."""

_FORMS = {"train": (0, 9), "validation": (9, 11), "test": (11, 14)}
_N_IMAGES, _SIZE = 1797, 8
_DIGEST = "cefd67273315516d"


class ImageBatch(NamedTuple):
    """Images before augmentation and normalisation.

    Attributes:
        pixels: ``(N, 8, 8)`` float32, from 0 (paper) to 16 (ink); rows, then columns.
        labels: ``(N,)`` int64.
        clip_ids: ``(N,)`` int64, see :class:`asr_dni.data.batch.AudioBatch`.
    """

    pixels: Tensor
    labels: Tensor
    clip_ids: Tensor


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
    shift_y, shift_x, turn, slant, log_height, log_width = draws[:, :, None, None].unbind(1)
    y, x = torch.meshgrid(
        torch.arange(height, device=pixels.device) - (height - 1) / 2,
        torch.arange(width, device=pixels.device) - (width - 1) / 2,
        indexing="ij",
    )
    angle = turn * math.radians(settings.rotation)
    # From a pixel of the result back to the place in the image that it shows.
    y, x = y - shift_y * settings.shift, x - shift_x * settings.shift
    y, x = angle.cos() * y - angle.sin() * x, angle.sin() * y + angle.cos() * x
    x = x - slant * settings.slant * y
    stretch = math.log(settings.scale)
    y, x = y * (log_height * stretch).exp(), x * (log_width * stretch).exp()
    grid = torch.stack((x * 2 / width, y * 2 / height), -1)
    return grid_sample(pixels[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0]


class DigitLoader(OrderedLoader[ImageBatch]):
    """Batches of the images of a split.

    Args:
        images: of the split.
        order: how they are put into batches.
        pin_memory: whether batches lie in page-locked memory.
    """

    def __init__(self, images: ImageBatch, order: BatchOrder, pin_memory: bool = False) -> None:
        super().__init__(order, pin_memory)
        self.images = images

    def gather(self, positions: NDArray[np.int64]) -> ImageBatch:
        """Return the images at these positions."""
        chosen = torch.from_numpy(positions)
        parts = (tensor[chosen] for tensor in self.images)
        return ImageBatch(*(part.pin_memory() if self.pin_memory else part for part in parts))


_NO_DEFORMATION = DeformationSettings()


class DigitsData(SplitData[ImageBatch]):
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

    _raw = ImageBatch
    identity = "digits of scikit-learn (UCI test part), row by row"

    def __init__(
        self,
        deformation: DeformationSettings = _NO_DEFORMATION,
        batch_size: int = 64,
        seed: int = 0,
        normalize: bool = True,
    ) -> None:
        super().__init__(batch_size, seed)
        self.deformation = deformation
        self.normalize = normalize
        self._statistics: dict[str, Tensor] | None = None
        self._images: ImageBatch | None = None
        settings = {
            "deformation": dataclasses.asdict(deformation),
            "batch_size": batch_size,
            "seed": seed,
            "normalize": normalize,
        }
        self.save_hyperparameters({SETTINGS_KEY: settings})

    # ------------------------------------------------------------------ what is known before the data are

    @property
    def label_names(self) -> list[str]:
        """The digits, in the order of the network's outputs."""
        return [str(digit) for digit in range(10)]

    @property
    def n_features(self) -> int:
        """Features per step: pixels of a row."""
        return _SIZE

    @property
    def n_frames(self) -> int:
        """Steps of a sequence: rows of an image."""
        return _SIZE

    @property
    def protocol(self) -> str:
        """What an accuracy on the test split has to be called by."""
        return f"{self.identity}, forms 12 to 14 of 14"

    def protocol_of(self, split: str) -> str:
        """Return what an accuracy on ``split`` has to be called by.

        Raises:
            UserError: there is no such split.
        """
        first, after = _FORMS[_checked(split)]
        return f"{self.identity}, forms {first + 1} to {after} of {len(FIRST_OF_FORM)}"

    # ------------------------------------------------------------------ preparing

    def prepare_data(self) -> None:
        """Check that scikit-learn has the data."""
        self._load()

    def setup(self, stage: str | None = None) -> None:
        """Load the images; compute the statistics, unless a checkpoint had them."""
        self._load()
        self._fit_statistics()

    def _load(self) -> ImageBatch:
        """Return all 1,797 images."""
        if self._images is None:
            from sklearn.datasets import load_digits

            pixels, labels = load_digits(return_X_y=True)
            found = hashlib.blake2b(pixels.astype(np.uint8).tobytes(), digest_size=8)
            found.update(labels.astype(np.uint8).tobytes())
            if found.hexdigest() != _DIGEST:
                raise UserError(
                    "sklearn.datasets.load_digits: these are not the 1,797 images that the splits were made for; "
                    "install another version of scikit-learn"
                )
            self._images = ImageBatch(
                torch.from_numpy(pixels).float().reshape(_N_IMAGES, _SIZE, _SIZE),
                torch.from_numpy(labels).long(),
                torch.tensor([clip_id(_name(index)) for index in range(_N_IMAGES)]),
            )
        return self._images

    def _fit_statistics(self) -> dict[str, Tensor]:
        if self._statistics is None:
            pixels = self._split("train").pixels.double()
            self._statistics = {"mean": pixels.mean().float(), "std": pixels.std(correction=0).float()}
        return self._statistics

    # ------------------------------------------------------------------ batches

    def _size(self, split: Selected) -> int:
        return len(self._split(split).labels)

    def _gathering(self, split: Selected, order: BatchOrder, pin_memory: bool = False) -> DigitLoader:
        return DigitLoader(self._split(split), order, pin_memory)

    def _split(self, split: str) -> ImageBatch:
        images = _range(_checked(split))
        return ImageBatch(*(tensor[images] for tensor in self._load()))

    @torch.no_grad()
    def transform(self, batch: ImageBatch, *, training: bool = False, epoch: int = 0) -> Batch:
        """Turn images into sequences of rows.

        Args:
            batch: ``(N, 8, 8)`` images on any device.
            training: whether they are deformed.
            epoch: of the training; with the seed and the image it decides the deformation.

        Returns:
            ``(N, T, F)`` features on the same device.
        """
        features = batch.pixels
        if training and self.deformation.changes:
            draws = 2 * uniform(derive_key(self.seed, "deformation", epoch), batch.clip_ids, 6) - 1
            features = deform(features, self.deformation, draws)
        if self.normalize:
            statistics = self._fit_statistics()
            features = (features - statistics["mean"]) / statistics["std"]
        return Batch(features, batch.labels, batch.clip_ids)

    def batches(self, split: Split, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Go through a split once, in the order of the data set, without deformation, outside a trainer.

        Args:
            split: the split.
            device: where the features are computed.
        """
        for batch in self._gathering(split, BatchOrder(self._size(split), self.batch_size)):
            yield self.transform(ImageBatch(*(tensor.to(device) for tensor in batch)))

    def clip_names(self, clip_ids: Iterable[int] | Tensor) -> list[str]:
        """Return the images' names: ``digits/`` and the position in the data set."""
        if isinstance(clip_ids, Tensor):
            clip_ids = clip_ids.tolist()
        names = {clip_id(_name(index)): _name(index) for index in range(_N_IMAGES)}
        return [names[identity] for identity in clip_ids]

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return the label names, the statistics and what the data are; plain types and tensors."""
        return {
            "label_names": self.label_names,
            "source": self.identity,
            "statistics": {name: tensor.clone() for name, tensor in self._fit_statistics().items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the statistics of a checkpoint.

        Raises:
            UserError: the checkpoint is one of other data.
        """
        if state_dict.get("source") != self.identity or state_dict["label_names"] != self.label_names:
            raise UserError(
                f"the checkpoint was trained on {state_dict.get('source')}, not on {self.identity}; give its own data"
            )
        statistics: Mapping[str, Tensor] = state_dict["statistics"]
        if any(name not in statistics or statistics[name].shape != () for name in ("mean", "std")):
            raise UserError("the checkpoint's statistics are not those of digits; give a checkpoint of them")
        self._statistics = {name: statistics[name].float().cpu() for name in ("mean", "std")}

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any], **replacements: Any) -> Self:
        """Rebuild the data module that a network was trained with: its settings and statistics.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.
            **replacements: arguments of the constructor that are to be others, such as ``batch_size``.

        Raises:
            UserError: the file is missing or is not a checkpoint with these data.
        """
        settings, state, where = cls._kept(checkpoint, otherwise="was not trained on digits")
        flat = {key: value for key, value in settings.items() if key != "deformation"}
        arguments = checked_arguments(cls, flat, f"{where}: data", skip=("deformation",))
        deformation = checked_arguments(
            DeformationSettings, settings.get("deformation"), f"{where}: data.deformation"
        )
        data = cls(**{**arguments, "deformation": DeformationSettings(**deformation), **replacements})
        data.load_state_dict(state)
        return data


def _name(index: int) -> str:
    return f"digits/{index:04d}"


def _checked(split: str) -> Split:
    for known in SPLITS:
        if split == known:
            return known
    raise UserError(f"split: {split!r} is not valid; give {', '.join(SPLITS)}")


def _range(split: Split) -> slice:
    """Return the images of a split."""
    ends = (*FIRST_OF_FORM, _N_IMAGES)
    first, after = _FORMS[split]
    return slice(ends[first], ends[after])
