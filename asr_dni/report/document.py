"""What a report consists of, as data: sections of texts, tables, answers and figures; nothing of how it is set."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from asr_dni.plotting import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: plain.
        kind: ``plain``; ``small``, what one need not read; or ``warning``, what one must not miss.
    """

    text: str
    kind: Literal["plain", "small", "warning"] = "plain"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: stands above.
        header: N names; the first column names its rows.
        rows: N texts each.
        note: stands below.
        numbers: whether all columns but the first hold numbers, which are set flush right.
        folded: whether it is shown only on demand, where that is possible.

    Raises:
        ValueError: a row has another length than the header.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    numbers: bool = False
    folded: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(
                f"table {self.title!r} has {len(self.header)} columns and a row with more or fewer"
            )


@dataclass(frozen=True)
class Answer:
    """One answer to a question.

    Attributes:
        about: of what.
        verdict: ``supports``, ``does not support``, ``cannot tell``, ``cannot be tested`` or ``estimate``.
        sentence: the answer.
    """

    about: str
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Answers:
    """A question's answers.

    Attributes:
        title: the question.
        answers: one per architecture.
        tests: what was tested, in words.
    """

    title: str
    answers: tuple[Answer, ...]
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """Several figures of one kind, by what tells them apart."""

    title: str
    figures: Mapping[str, Figure]


Block: TypeAlias = Text | Table | Answers | Choice | Figure


@dataclass(frozen=True)
class Section:
    """A part of a report with a heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: its heading.
        lead: what it is of.
        sections: in their order.
        date: of its newest result.
    """

    title: str
    lead: str
    sections: tuple[Section, ...] = ()
    date: datetime | None = None
