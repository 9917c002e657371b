"""The configurations that come with the project: found by name wherever a command is started."""

import difflib
import os
from pathlib import Path

from asr_dni.errors import UserError

_PACKAGE = Path(__file__).parent
FOLDER = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Where they are: in the package where it was installed from a wheel, beside it in a checkout."""

_SUFFIX = ".yaml"


def configuration_names() -> list[str]:
    """Return the names of all configurations, such as ``experiment/digits_lstm_dni``, sorted."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob(f"*{_SUFFIX}"))


def describe(name: str) -> str:
    """Return what a configuration is for: its first comment, up to the end of the first sentence."""
    words: list[str] = []
    for line in (FOLDER / f"{name}{_SUFFIX}").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words.append(line.removeprefix("#").strip())
    return " ".join(words).partition(". ")[0].rstrip(".")


def named_configuration(name: str, folder: str = "experiment") -> Path | None:
    """Return the file of a configuration; ``None``: there is none of this name.

    Args:
        name: as :func:`configuration_names` has it, or only what stands after the last slash; ``.yaml`` at its end and
            ``conf/`` before it change nothing.
        folder: where a name without a slash is looked for first.

    Raises:
        UserError: several configurations have this name.
    """
    wanted = name.replace(os.sep, "/").removeprefix("conf/").removesuffix(_SUFFIX)
    names = configuration_names()
    if wanted not in names and "/" not in wanted:
        same = [known for known in names if known.rpartition("/")[2] == wanted]
        if f"{folder}/{wanted}" in same:
            wanted = f"{folder}/{wanted}"
        elif len(same) > 1:
            raise UserError(f"{name} is the name of several configurations: give {' or '.join(same)}")
        elif same:
            wanted = same[0]
    return FOLDER / f"{wanted}{_SUFFIX}" if wanted in names else None


def find_configuration(given: str | Path, folder: str = "experiment") -> Path:
    """Return the configuration file that is meant: a file's path wins over a configuration's name.

    Args:
        given: a path, or a name as in :func:`named_configuration`.
        folder: see there.

    Raises:
        UserError: there is neither such a file nor such a name, or several have this name.
    """
    path = Path(given)
    if path.exists() and not path.is_dir():
        return path
    found = named_configuration(str(given), folder)
    if found is None:
        raise UserError(
            f"{given}: there is no such configuration file, and none of that name{_near(str(given))}"
        )
    return found


def _near(given: str) -> str:
    """Return what to do about a name that is unknown."""
    wanted = Path(given).stem
    ends = {name.rpartition("/")[2]: name for name in configuration_names()}
    names = [ends[end] for end in difflib.get_close_matches(wanted, ends, n=3, cutoff=0.7)]
    return f"; similar: {', '.join(names)}" if names else "; asr-dni conf list shows all"
