"""Label sets: which clips belong to a task, and under which label."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asr_dni.bounds import at_most
from asr_dni.data.source import SILENCE, SPLITS, UNKNOWN, Split, YamlWord, composed, words_from_yaml
from asr_dni.data.store import PackedStore, clip_id
from asr_dni.errors import UserError

CANONICAL_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The words of the 12-label task, in the order of its published code (TensorFlow's input_data.py)."""

_CANONICAL_PERCENT = 10.0


@dataclass(frozen=True)
class LabelSettings:
    """Which labels the network tells apart.

    The 12-label task (``canonical``) is ten words, all other words as ``_unknown_`` and background as
    ``_silence_``. Its test set is drawn from the source's own test split (``rule``, as in training and
    validation), or is the separate test archive (``archive``; 4,890 clips for Speech Commands v0.02).
    Accuracies on the two do not compare.

    Args:
        words: ``all`` words of the source, the ten ``canonical`` ones, or a list; a list keeps its order.
        unknown_percent: size of the ``_unknown_`` class, drawn from the other words, in per cent of the clips
            of the chosen words in the same split; 0: no such class; null: 10 for canonical, otherwise 0.
        silence_percent: size of the ``_silence_`` class, likewise.
        test_set: where the test split of a task comes from, ``rule`` or ``archive``.
        draw_seed: of the draw of the unknown clips, and of what background the silent clips of validation and test
            hold. It is no training seed: networks trained with different seeds are tested on the same clips. The
            default is the published code's.
    """

    words: Literal["all", "canonical"] | list[YamlWord] = "all"
    unknown_percent: float | None = None
    silence_percent: float | None = None
    test_set: Literal["rule", "archive"] = "rule"
    draw_seed: int = 59185

    def __post_init__(self) -> None:
        for key in ("unknown_percent", "silence_percent"):
            value = getattr(self, key)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"labels.{key}: {value} is not valid; give 0 or more per cent, or null")
            at_most(f"labels.{key}", value or 0, 10_000)
        if isinstance(self.words, str) and self.words not in ("all", "canonical"):
            raise UserError(
                f"labels.words: {self.words!r} is not valid; give all, canonical or a list of words"
            )
        if not isinstance(self.words, str):
            if not self.words:
                raise UserError("labels.words: an empty list; give all, canonical or at least one word")
            words = words_from_yaml("labels.words", self.words)
            for word in words:
                if word in (SILENCE, UNKNOWN):
                    key = "silence_percent" if word == SILENCE else "unknown_percent"
                    raise UserError(f"labels.words: {word} is not a word; ask for that class with {key}")
            object.__setattr__(self, "words", words)
        if self.test_set not in ("rule", "archive"):
            raise UserError(f"labels.test_set: {self.test_set!r} is not valid; give rule or archive")
        if self.words == "all" and self.percent_unknown:
            raise UserError("labels.unknown_percent: with words: all no other words are left; give a list")

    @property
    def percent_unknown(self) -> float:
        """``unknown_percent`` with its default filled in."""
        return self._filled(self.unknown_percent)

    @property
    def percent_silence(self) -> float:
        """``silence_percent`` with its default filled in."""
        return self._filled(self.silence_percent)

    def _filled(self, value: float | None) -> float:
        if value is not None:
            return value
        return _CANONICAL_PERCENT if self.words == "canonical" else 0.0

    @property
    def protocol(self) -> str:
        """What an accuracy on these labels has to be called by, such as ``12 labels, test archive``."""
        extra = (self.percent_unknown > 0) + (self.percent_silence > 0)
        where = "test archive" if self.test_set == "archive" else "own test split"
        if self.words == "all":
            return f"all words, {where}"
        n_words = len(CANONICAL_WORDS) if self.words == "canonical" else len(self.words)
        return f"{n_words + extra} labels, {where}"


def label_names(settings: LabelSettings, source_words: Sequence[str], identity: str) -> list[str]:
    """Return the labels in the order of the network's outputs.

    ``_silence_`` and ``_unknown_`` come first, as published; then the words, in the order given (``all``:
    sorted).

    Args:
        settings: the label settings.
        source_words: the words that the source has.
        identity: the source's name, for the message.

    Raises:
        UserError: a word that is asked for is missing, or there are fewer than two labels.
    """
    if settings.words == "all":
        words = sorted(source_words)
    else:
        words = [
            composed(str(w)) for w in (CANONICAL_WORDS if settings.words == "canonical" else settings.words)
        ]
        missing = [word for word in words if word not in source_words]
        if missing:
            raise UserError(
                f"labels.words: {', '.join(missing)}: not in {identity}, which has {', '.join(source_words)}"
            )
    names = [SILENCE] if settings.percent_silence else []
    names += [UNKNOWN] if settings.percent_unknown else []
    names += words
    if len(names) < 2:
        raise UserError(
            f"labels.words: there is nothing to tell apart, for {identity} has only the word {', '.join(names)}; give a"
            " folder with two words or more, or labels.silence_percent"
            if settings.words == "all"
            else f"labels.words: there is nothing to tell apart from {', '.join(names)}; give two words or more, or"
            " labels.unknown_percent or labels.silence_percent"
        )
    return names


@dataclass(frozen=True)
class Selection:
    """Clips of a store, with their labels in a task.

    Attributes:
        rows: ``(n,)`` int64 rows of the store; -1 for a made clip of silence.
        labels: ``(n,)`` int64 positions in the label names; -1 where a clip's word is not among them.
        clip_ids: ``(n,)`` int64.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    clip_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def select_known(
    store: PackedStore,
    names: Sequence[str],
    split: Split | None,
    *,
    recorded_classes: bool = True,
    other_words: bool = False,
) -> Selection:
    """Select all clips of a split whose label is among ``names``; nothing is drawn or made.

    Args:
        store: the clips.
        names: the labels.
        split: the split; None: all clips.
        recorded_classes: whether the recordings that the source keeps as ``_silence_`` and ``_unknown_``
            count.
        other_words: whether clips of all other labels are there too, as -1.
    """
    usable = [label for label in names if recorded_classes or label not in (SILENCE, UNKNOWN)]
    positions = {label: position for position, label in enumerate(names) if label in usable}
    code_to_label = np.array([positions.get(label, -1) for label in store.label_names], dtype=np.int64)
    labels = code_to_label[store.labels]
    wanted = np.full(len(labels), True) if other_words else labels >= 0
    if split is not None:
        wanted &= store.splits == SPLITS.index(split)
    rows = np.flatnonzero(wanted).astype(np.int64)
    return Selection(rows, labels[rows], np.asarray(store.clip_ids[rows], dtype=np.int64))


def select(store: PackedStore, settings: LabelSettings, names: Sequence[str], split: Split) -> Selection:
    """Select the clips of a split as the 12-label task was published, for any list of words.

    All clips of the chosen words; then ceil(p / 100 * that number) made clips of silence and as many clips of
    other words, drawn by ``draw_seed``. Which ones are drawn depends on it and the names alone, not on what
    else is there.

    Args:
        store: the clips.
        settings: the label settings.
        names: the labels, see :func:`label_names`.
        split: the split.
    """
    known = select_known(store, names, split, recorded_classes=False)
    parts = [known]
    if settings.percent_silence:
        number = math.ceil(len(known) * settings.percent_silence / 100)
        ids = [clip_id(f"{SILENCE}/{split}/{k}", silence=True) for k in range(number)]
        labels = np.full(number, names.index(SILENCE))
        parts.append(Selection(np.full(number, -1), labels, np.array(ids, dtype=np.int64)))
    if settings.percent_unknown:
        known_names = {*names, SILENCE, UNKNOWN}
        code_is_other = np.array([label not in known_names for label in store.label_names])
        others = np.flatnonzero(code_is_other[store.labels] & (store.splits == SPLITS.index(split)))
        number = math.ceil(len(known) * settings.percent_unknown / 100)
        keys = [_draw_key(settings.draw_seed, int(store.clip_ids[row])) for row in others]
        drawn = np.sort(others[np.argsort(np.array(keys, dtype=np.uint64), kind="stable")[:number]])
        labels = np.full(len(drawn), names.index(UNKNOWN))
        parts.append(Selection(drawn, labels, np.asarray(store.clip_ids[drawn], dtype=np.int64)))
    return Selection(
        np.concatenate([part.rows for part in parts]).astype(np.int64),
        np.concatenate([part.labels for part in parts]).astype(np.int64),
        np.concatenate([part.clip_ids for part in parts]).astype(np.int64),
    )


def _draw_key(seed: int, identity: int) -> int:
    digest = hashlib.blake2b(f"unknown {seed} {identity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
