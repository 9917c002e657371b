"""The lists that say which clips are for validation and test: ``validation_list.txt`` and ``testing_list.txt``."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from asr_dni.data.source import Split, composed, without_audio_suffix
from asr_dni.errors import UserError, first_few

LIST_NAMES: dict[Split, str] = {"validation": "validation_list.txt", "test": "testing_list.txt"}

MOST_UNMATCHED = 0.1
"""Of the lines that name a word of the folder; a list with more that match no file is an error."""

_Value = TypeVar("_Value")


def listed_splits(
    folder: Path, names: Sequence[str], words: Collection[str]
) -> tuple[dict[str, Split], list[str]]:
    """Read the lists of a folder.

    A line names a clip where they agree but for their Unicode form (a Mac writes others) and their ending (the
    recordings may have been converted since). A line that names none would let its clip into training, so it is told,
    and where there are many, it is an error.

    Args:
        folder: where the lists are; both may be missing.
        names: the clips, ``label/file name``.
        words: the labels. Lines of others harm nobody, for there are no such clips: they are counted only.

    Returns:
        The split of each name that a list has, and what is to be told of lines that match nothing.

    Raises:
        UserError: a list cannot be read, does not fit the folder, or both lists have one clip.
    """
    exactly = _grouped((composed(name), name) for name in names)
    without_ending = _grouped((_without_ending(name), name) for name in names)
    splits: dict[str, Split] = {}
    remarks = []
    for split, list_name in LIST_NAMES.items():
        path = folder / list_name
        if not path.exists():
            continue
        lines = _read(path)
        unmatched = []
        for line in lines:
            found = exactly.get(composed(line)) or without_ending.get(_without_ending(line))
            if not found:
                unmatched.append(line)
            for name in found or ():
                if splits.get(name, split) != split:
                    raise UserError(
                        f"{path}: {name} is in {LIST_NAMES[splits[name]]} too; keep it in one of the two"
                    )
                splits[name] = split
        if lines and len(unmatched) == len(lines):
            raise UserError(
                f"{path}: none of its {len(lines)} lines names a clip of this folder; "
                f"expected lines such as {min(names)}"
            )
        remarks += _unmatched_remarks(path, len(lines), unmatched, words)
    return splits, remarks


def _unmatched_remarks(path: Path, n_lines: int, unmatched: list[str], words: Collection[str]) -> list[str]:
    """Return what is to be told of a list's lines that match no file.

    Raises:
        UserError: they are many.
    """
    composed_words = {composed(word) for word in words}
    of_words = [line for line in unmatched if composed(line.partition("/")[0]) in composed_words]
    elsewhere = Counter(line.partition("/")[0] for line in unmatched)
    for line in of_words:
        elsewhere.pop(line.partition("/")[0], None)
    remarks = []
    if of_words:
        n_relevant = n_lines - sum(elsewhere.values())
        said = (
            f"{path}: {len(of_words)} of {n_relevant} lines name no file, so that clips may be trained on that were"
            f" meant to be held out: {first_few(of_words)}"
        )
        if len(of_words) > MOST_UNMATCHED * n_relevant:
            raise UserError(
                f"{said}; mend or remove these lines (up to {MOST_UNMATCHED:.0%} are only warned about)"
            )
        remarks.append(said)
    if elsewhere:
        counted = [f"{word} ({count})" for word, count in elsewhere.items()]
        remarks.append(
            f"{path}: {sum(elsewhere.values())} lines name words that have no folder: {first_few(counted)}"
        )
    return remarks


def _read(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: this list cannot be read (not a file)")
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: this list cannot be read ({error.strerror or error})") from None
    if "\0" in text:
        raise UserError(f"{path}: this list cannot be read (not a text in UTF-8)")
    lines = (line.strip().replace("\\", "/").removeprefix("./") for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def _without_ending(name: str) -> str:
    return without_audio_suffix(composed(name))


def _grouped(pairs: Iterable[tuple[str, _Value]]) -> Mapping[str, list[_Value]]:
    groups: defaultdict[str, list[_Value]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
