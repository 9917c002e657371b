"""Random changes to training clips, batched and on the device of the batch.

Every random number is a function of the seed, the epoch and the clip's identity: how clips are put into
batches, on which device, by how many workers, doesn't change what happens to a clip.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr_dni.bounds import at_most
from asr_dni.data.clip_features import to_float
from asr_dni.data.waveform_change import Background, WaveformChange
from asr_dni.errors import UserError
from asr_dni.philox import derive_key, uniform

# Which of a clip's uniform numbers decides what. New purposes go to the end, so that old draws stay.
_SHIFT, _SPEED, _GAIN, _MIXED, _LEVEL, _OFFSET = range(6)
_N_DRAWS = 6


@dataclass(frozen=True)
class AugmentationSettings:
    """What is changed at random in training clips; the defaults are those published with Speech Commands.

    In this order: speed, time shift, gain, background, clipping to [-1, 1]; SpecAugment and cutout on the features.

    Args:
        time_shift_ms: largest shift in time in milliseconds, to either side, filled with zeros; 0 for none.
        speed: lowest and highest factor of speed, such as [0.9, 1.1]: pitch and length of the word change as
            if the recording were played faster or slower about the clip's middle; null for none.
        gain_db: lowest and highest change of level in dB, such as [-10, 5]; null for none.
        background_probability: share of clips that get a random part of a background recording; 0 for none.
        background_volume: largest factor of the background, drawn uniformly from 0 upwards; null when
            ``background_snr_db`` is used.
        background_snr_db: lowest and highest ratio of a clip's power to its background's power in dB, instead
            of ``background_volume``; a clip without any sound gets no background.
        time_masks: SpecAugment masks over consecutive frames; 0 for none.
        time_mask_frames: largest width of such a mask in frames; the smallest is 0.
        frequency_masks: SpecAugment masks over consecutive features; 0 for none.
        frequency_mask_bins: largest width of such a mask in features; the smallest is 0.
        mask_mel_bands: whether frequency masks are on the mel bands that an MFCC is made of, before its DCT, rather
            than on its coefficients; their widths are in bands then. Features that are mel bands are masked alike.
        cutouts: boxes in time and features that are masked, of one size, with their centres anywhere (T. DeVries and
            G. Taylor, "Improved regularization of convolutional neural networks with cutout", arXiv:1708.04552); 0 for
            none.
        cutout_frames: length of such a box in frames.
        cutout_bins: its width in features.

    Raises:
        UserError: a value out of range; the line names the key.
    """

    time_shift_ms: float = 100.0
    speed: tuple[float, float] | None = None
    gain_db: tuple[float, float] | None = None
    background_probability: float = 0.8
    background_volume: float | None = 0.1
    background_snr_db: tuple[float, float] | None = None
    time_masks: int = 0
    time_mask_frames: int = 10
    frequency_masks: int = 0
    frequency_mask_bins: int = 4
    mask_mel_bands: bool = False
    cutouts: int = 0
    cutout_frames: int = 20
    cutout_bins: int = 8

    def __post_init__(self) -> None:
        def require(valid: bool, key: str, expected: str) -> None:
            if not valid:
                raise UserError(f"{key}: {getattr(self, key)!r} is not valid: give {expected}")

        require(0 <= self.time_shift_ms < math.inf, "time_shift_ms", "0 ms (off) or more")
        for key, lowest, example in (
            ("speed", 0.1, "[0.9, 1.1]"),
            ("gain_db", -math.inf, "[-10, 5]"),
            ("background_snr_db", -math.inf, "[0, 20]"),
        ):
            limits = getattr(self, key)
            if limits is not None:
                valid = len(limits) == 2 and lowest < limits[0] <= limits[1] < math.inf
                require(valid, key, f"the lowest and the highest value, such as {example}, or null")
        require(
            0 <= self.background_probability <= 1, "background_probability", "a probability, 0 (off) to 1"
        )
        if self.background_volume is not None:
            require(0 <= self.background_volume < math.inf, "background_volume", "0 or more, or null")
        if self.background_probability > 0:
            if self.background_volume is not None and self.background_snr_db is not None:
                raise UserError(
                    "background_volume and background_snr_db exclude each other: set one of them to null"
                )
            if self.background_volume is None and self.background_snr_db is None:
                raise UserError(
                    "background_probability: a level is missing: give background_volume or "
                    "background_snr_db, or set background_probability to 0"
                )
        for masks, width in (
            ("time_masks", "time_mask_frames"),
            ("frequency_masks", "frequency_mask_bins"),
            ("cutouts", "cutout_frames"),
            ("cutouts", "cutout_bins"),
        ):
            require(getattr(self, masks) >= 0, masks, "0 (off) or more")
            at_most(masks, getattr(self, masks), 1_000)
            require(
                getattr(self, width) >= (1 if getattr(self, masks) else 0),
                width,
                f"1 or more, or set {masks} to 0",
            )

        if self.mask_mel_bands and not self.frequency_masks:
            raise UserError(
                "mask_mel_bands: there are no masks: give frequency_masks above 0, or leave it out"
            )

    @classmethod
    def off(cls) -> "AugmentationSettings":
        """Return settings that change nothing."""
        return cls(time_shift_ms=0.0, background_probability=0.0)


def _between(draws: Tensor, limits: tuple[float, float]) -> Tensor:
    return limits[0] + draws * (limits[1] - limits[0])


def _below(draws: Tensor, limits: Tensor | int) -> Tensor:
    """Turn uniform numbers in (0, 1] into integers 0 .. ``limits - 1``, equally likely."""
    numbers = ((1.0 - draws) * limits).to(torch.int64)
    return numbers.clamp(max=limits - 1)  # 1 - draw may round to 1


class Augmentation(nn.Module):
    """Applies :class:`AugmentationSettings` to batches of training clips.

    Args:
        settings: what to change; the defaults where None.
        sample_rate: of the waveforms in Hz.
        seed: other seeds give other, equally random changes.
    """

    def __init__(
        self, settings: AugmentationSettings | None = None, sample_rate: int = 16000, seed: int = 0
    ) -> None:
        super().__init__()
        self.settings = settings or AugmentationSettings()
        self.sample_rate = sample_rate
        self.seed = seed

    @torch.no_grad()
    def waveforms(
        self,
        waveforms: Tensor,
        clip_ids: Tensor,
        epoch: int,
        background: Tensor | None = None,
    ) -> Tensor:
        """Change the samples of a batch: speed, time shift, gain and background.

        Args:
            waveforms: ``(N, S)`` int16, or float samples in [-1, 1]; left as they are.
            clip_ids: ``(N,)`` integer identities of the clips.
            epoch: number of the pass over the training split.
            background: ``(L,)`` float samples of all background recordings, on the same device; repeated if
                shorter than a clip. None or empty: no background is mixed in.

        Returns:
            ``(N, S)`` changed samples, float in [-1, 1].
        """
        settings = self.settings
        max_shift = round(settings.time_shift_ms * self.sample_rate / 1000)
        mixing = settings.background_probability > 0 and background is not None and len(background) > 0
        if not (max_shift or settings.speed or settings.gain_db or mixing):
            return to_float(waveforms) if waveforms.dtype == torch.int16 else waveforms
        key = derive_key(self.seed, "augmentation", epoch)
        draws = uniform(key, clip_ids.to(waveforms.device), _N_DRAWS)
        gain = _between(draws[:, _GAIN], settings.gain_db) if settings.gain_db else None
        change = WaveformChange(
            shift=_below(draws[:, _SHIFT], 2 * max_shift + 1) - max_shift,
            max_shift=max_shift,
            speed=_between(draws[:, _SPEED], settings.speed) if settings.speed else None,
            gain=torch.pow(10.0, gain / 20) if gain is not None else None,
            background=None
            if background is None or not mixing
            else self._background(background, draws, waveforms.shape[1]),
        )
        return change.apply(waveforms)

    @torch.no_grad()
    def masked_bands(self, n_bands: int, clip_ids: Tensor, epoch: int) -> Tensor | None:
        """Return which mel bands of a batch are masked before features are made of them.

        Args:
            n_bands: mel bands.
            clip_ids: ``(N,)`` integer identities of the clips.
            epoch: number of the pass over the training split.

        Returns:
            ``(N, n_bands)`` booleans, the masks that :meth:`features` would put on so many features; None: none are.
        """
        if not self.settings.mask_mel_bands or not self.settings.frequency_masks:
            return None
        return self._frequency_masks(n_bands, clip_ids, epoch)

    @torch.no_grad()
    def features(self, features: Tensor, clip_ids: Tensor, epoch: int, n_bands: int | None = None) -> Tensor:
        """Mask frames, features and boxes of a batch with zeros, the mean of normalised features.

        D. Park et al., "SpecAugment: A simple data augmentation method for automatic speech recognition",
        Interspeech 2019, without the time warp: the width of a mask is uniform from 0 to its largest, its
        place uniform among those where it fits.

        Args:
            features: ``(N, T, F)``; left as they are.
            clip_ids: ``(N,)`` integer identities of the clips.
            epoch: number of the pass over the training split.
            n_bands: features that may be masked by themselves; with feature k all others of band ``k % n_bands``
                are, such as its deltas. None: all of F.

        Returns:
            ``(N, T, F)`` masked features.
        """
        settings = self.settings
        _, n_frames, n_features = features.shape
        ids = clip_ids.to(features.device)
        if settings.time_masks:
            draws = uniform(derive_key(self.seed, "time masks", epoch), ids, 2 * settings.time_masks)
            masked = self._masked(draws, n_frames, settings.time_mask_frames)
            features = features.masked_fill(masked[:, :, None], 0.0)
        bands = n_bands or n_features
        copies = -(-n_features // bands)
        if settings.frequency_masks and not settings.mask_mel_bands:
            masked = self._frequency_masks(bands, ids, epoch).repeat(1, copies)[:, None, :n_features]
            features = features.masked_fill(masked, 0.0)
        if settings.cutouts:
            draws = uniform(derive_key(self.seed, "cutouts", epoch), ids, 2 * settings.cutouts)
            frames = self._around(draws[:, 0::2], n_frames, settings.cutout_frames)
            inside = self._around(draws[:, 1::2], bands, settings.cutout_bins)
            masked = (frames[..., None] & inside[:, :, None]).any(1)
            features = features.masked_fill(masked.repeat(1, 1, copies)[..., :n_features], 0.0)
        return features

    def _frequency_masks(self, bands: int, clip_ids: Tensor, epoch: int) -> Tensor:
        """Return ``(N, bands)``, true inside a mask."""
        settings = self.settings
        key = derive_key(self.seed, "frequency masks", epoch)
        draws = uniform(key, clip_ids, 2 * settings.frequency_masks)
        return self._masked(draws, bands, settings.frequency_mask_bins)

    @staticmethod
    def _around(draws: Tensor, length: int, width: int) -> Tensor:
        """Return ``(N, n, length)``, true in spans of one width about centres that ``draws``, ``(N, n)``, are."""
        starts = _below(draws, length) - width // 2
        places = torch.arange(length, device=draws.device)
        return (places >= starts[..., None]) & (places < (starts + width)[..., None])

    def extra_repr(self) -> str:
        """Return the settings, for ``print(module)``."""
        return f"{self.settings}, sample_rate={self.sample_rate}, seed={self.seed}"

    def _background(self, recordings: Tensor, draws: Tensor, n_samples: int) -> Background:
        settings = self.settings
        if len(recordings) < n_samples:
            recordings = recordings.repeat(-(-n_samples // len(recordings)))
        if settings.background_snr_db is not None:
            level = torch.pow(10.0, _between(draws[:, _LEVEL], settings.background_snr_db) / 10)
        else:
            level = draws[:, _LEVEL] * (settings.background_volume or 0.0)
        return Background(
            recordings,
            start=_below(draws[:, _OFFSET], len(recordings) - n_samples + 1),
            level=level * (draws[:, _MIXED] <= settings.background_probability),
            by_power=settings.background_snr_db is not None,
        )

    @staticmethod
    def _masked(draws: Tensor, length: int, max_width: int) -> Tensor:
        """Return ``(N, length)``, true inside a mask; ``draws`` ``(N, 2 * masks)`` are widths and places."""
        width_draws, place_draws = draws[:, 0::2], draws[:, 1::2]
        widths = _below(width_draws, min(max_width, length) + 1)
        starts = _below(place_draws, length - widths + 1)
        places = torch.arange(length, device=draws.device)
        inside = (places >= starts[..., None]) & (places < (starts + widths)[..., None])
        return inside.any(dim=1)
