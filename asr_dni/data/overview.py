"""What is told of recordings before they are used: how many, by how many people, and what is odd about them."""

from collections.abc import Mapping, Sequence

import numpy as np
from lightning_fabric.utilities.rank_zero import rank_zero_only

from asr_dni.data.labels import Selection
from asr_dni.data.source import SILENCE, SPLITS, Split
from asr_dni.data.store import PackedStore
from asr_dni.errors import first_few, printable


def tell(message: str) -> None:
    """Print a line, in the first of a run's processes."""
    if _is_first_process():
        print(printable(message), flush=True)


def _is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def speakers_of(store: PackedStore, selection: Selection) -> set[str]:
    """Return the speakers of the recordings among the selected clips; nobody speaks in silence."""
    rows = selection.rows[selection.rows >= 0]
    if SILENCE in store.label_names:
        rows = rows[store.labels[rows] != store.label_names.index(SILENCE)]
    return set(store.speakers(rows))


def describe_splits(
    identity: str,
    splits: Mapping[str, tuple[PackedStore, Selection]],
    *,
    speakers_known: bool,
    skipped: int,
) -> str:
    """Return one line: the clips and speakers of each split.

    Args:
        identity: what the data are.
        splits: each split's store and clips.
        speakers_known: whether the speakers are people; if not, there are at most so many.
        skipped: damaged recordings that were left out.
    """
    parts = []
    for split, (store, selection) in splits.items():
        made = int((selection.rows < 0).sum())
        silent = f" ({made:,} of them made of silence)" if made else ""
        speakers = len(speakers_of(store, selection))
        number = f"{speakers:,} speaker{'' if speakers == 1 else 's'}"
        by = f" by {'' if speakers_known else 'at most '}{number}" if speakers else ""
        parts.append(f"{split} {len(selection):,} clips{silent}{by}")
    left_out = f"; {skipped:,} damaged left out" if skipped else ""
    return f"{identity}: {', '.join(parts)}{left_out}"


def shared_speakers_remark(identity: str, splits: Mapping[str, tuple[PackedStore, Selection]]) -> str | None:
    """Return a line about people who are in more than one split, as lists may have it; None: there are none."""
    people = {split: speakers_of(store, selection) for split, (store, selection) in splits.items()}
    known = people["train"]
    shared = {split: sorted(people[split] & known) for split in people if split != "train"}
    said = [
        f"{len(names)} of the {len(people[split])} speakers of the {split} split ({first_few(names)})"
        for split, names in shared.items()
        if names
    ]
    if not said:
        return None
    return f"{identity}: {' and '.join(said)} are trained on too, so accuracy there is not that of new people"


def count_left_out(store: PackedStore, names: Sequence[str], split: Split | None) -> dict[str, int]:
    """Return the number of clips of each label that is not among ``names``.

    Args:
        store: the clips.
        names: the labels.
        split: of the clips that count; None: all.
    """
    wanted = np.ones(len(store), dtype=bool) if split is None else store.splits == SPLITS.index(split)
    counts = np.bincount(store.labels[wanted], minlength=len(store.label_names))
    return {
        label: int(count)
        for label, count in zip(store.label_names, counts, strict=True)
        if label not in names and count
    }


def empty_split_message(identity: str, store: PackedStore, split: str) -> str:
    """Return what the matter is with a split that has no clips, and what can be done."""
    listed = {"validation": "validation_list.txt", "test": "testing_list.txt"}.get(split)
    speakers = len(set(store.speakers(np.arange(len(store)))))
    share = "80" if split == "train" else "10"
    return (
        f"{identity}: no clips are left in the {split} split, where the rule puts about {share} % of the speakers, of"
        f" whom there are {speakers}; add clips by other speakers, or "
        + (f"name some clips in {listed}" if listed else "take some clips out of the lists")
    )
