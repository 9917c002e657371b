"""The clips of a split one at a time, to be heard and looked at: samples, features, label and name."""

from dataclasses import dataclass

from torch import Tensor

from asr_dni.data.modules import SequenceData
from asr_dni.data.recorded import RecordedData
from asr_dni.data.source import Split


@dataclass(frozen=True)
class SplitClip:
    """A clip of a split.

    Attributes:
        position: in the split, in the order of the data.
        name: see :meth:`asr_dni.data.splits.SplitData.clip_names`.
        label: what it is; None where its word is not among the network's labels.
        clip_id: its identity, which its noise belongs to.
        features: ``(T, F)``, as the network gets them.
        samples: ``(S,)`` floating-point in [-1, 1); None where the data are no recordings.
        sample_rate: samples per second; None as above.
    """

    position: int
    name: str
    label: str | None
    clip_id: int
    features: Tensor
    samples: Tensor | None = None
    sample_rate: int | None = None


class SplitClips:
    """The clips of a split; a clip is read when it is asked for.

    Args:
        data: that are prepared and set up for the split.
        split: the split.

    Attributes:
        labels: ``(n,)`` positions in the label names; -1 where a clip's word is not among them.
        clip_ids: ``(n,)`` their identities.
    """

    def __init__(self, data: SequenceData, split: Split = "test") -> None:
        self.data, self.split = data, split
        self.labels, self.clip_ids = data.labels_and_ids(split)
        self._names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def recorded(self) -> bool:
        """Whether they are recordings, which can be heard."""
        return isinstance(self.data, RecordedData)

    @property
    def names(self) -> list[str]:
        """The names of all clips, in their order."""
        if self._names is None:
            self._names = self.data.clip_names(self.clip_ids)
        return self._names

    def __getitem__(self, position: int) -> SplitClip:
        """Return the clip at a position.

        Raises:
            IndexError: there is none.
        """
        raw = self.data.clips_at(self.split, [position])
        batch = self.data.transform(raw)
        label, clip_id = int(batch.labels[0]), int(batch.clip_ids[0])
        samples, rate = None, None
        if isinstance(self.data, RecordedData):
            samples, rate = self.data.heard(raw)[0], self.data.sample_rate
        return SplitClip(
            position,
            self.data.clip_names([clip_id])[0],
            self.data.label_names[label] if label >= 0 else None,
            clip_id,
            batch.features[0],
            samples,
            rate,
        )
