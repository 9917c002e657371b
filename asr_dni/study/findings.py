"""What a study's results say: effects with intervals, tests over seeds, and answers in words."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from asr_dni.study.hypothesis_tests import (
    ALPHA,
    MIN_SEEDS,
    TOO_FEW_SEEDS,
    Array,
    Tests,
    detectable_effect,
    holm,
    some_other_is_better,
    student_t_tests,
)
from asr_dni.study.matrix import (
    KEYS,
    Matrix,
    describe_key,
    describe_shared,
    label_matrices,
    make_matrices_with_notes,
    varying_keys,
)

Verdict: TypeAlias = Literal["supports", "does not support", "cannot tell", "cannot be tested", "estimate"]

QUESTIONS = {
    "flatter": "Does training under noise (DNI) make the noise curve flatter?",
    "best": "Which sigma_train is best for each sigma_infer?",
    "above_clean": "Are there noisy pairs (sigma_train, sigma_infer) above conventional training with clean inference?",
    "clean_inference": "Is training under noise better than conventional training when inference is clean?",
    "units": "How does it change with the number of units?",
    "schedules": "Does annealing the noise do better than constant noise?",
}
"""Questions that findings answer, by their names."""

_PAIRED = "paired Student t test over seeds"


@dataclass(frozen=True)
class Answer:
    """An answer to one question about one architecture.

    Attributes:
        question: one of :data:`QUESTIONS`.
        about: the architecture, and the setting as far as the study has several.
        key: values of :data:`asr_dni.study.matrix.KEYS` that it holds for.
        verdict: ``supports``: a test says yes after correction; ``does not support``: effects that matter are ruled
            out; ``cannot tell``: neither, or something to compare is missing; ``cannot be tested``: there are too few
            seeds; ``estimate``: the question asks how much.
        sentence: the answer.
        test: the test, and the family over which it was corrected.
    """

    question: str
    about: str
    key: dict[str, Any]
    verdict: Verdict
    sentence: str
    test: str


@dataclass(frozen=True)
class Differences:
    """Differences to conventional training, ``(T - 1, I)`` each: of every sigma_train > 0, at every sigma_infer.

    Attributes:
        effect: mean over seeds.
        low: lower end of its 95 % interval; NaN where there are too few seeds.
        high: its upper end.
        significant: whether a test says so, after correction.
    """

    effect: Array
    low: Array
    high: Array
    significant: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
        matrices: one per architecture and setting.
        answers: by question, then architecture.
        tables: ``matrix``, ``curves``, and one per question, ``difference`` (to conventional training at the same
            sigma_infer), ``missing``; numbers as fractions, not percent.
        notes: what limits the answers.
        setting: what all matrices have in common, in words.
    """

    matrices: tuple[Matrix, ...]
    answers: tuple[Answer, ...]
    tables: dict[str, pd.DataFrame]
    notes: tuple[str, ...]
    setting: str
    labels: tuple[str, ...] = field(default=())

    def differences(self, matrix: Matrix, to_clean: bool) -> Differences | None:
        """Return a matrix's differences to conventional training, as the tables have them.

        Args:
            matrix: one of :attr:`matrices`, or one with more levels.
            to_clean: to conventional training with clean inference, instead of at the same sigma_infer.

        Returns:
            ``None`` where there is nothing to compare with.
        """
        names = ("clean_inference", "above_clean") if to_clean else ("difference",)
        tables = [rows_of(self.tables[name], matrix) for name in names]
        rows = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()])
        if rows.empty:
            return None
        values = np.full((4, len(matrix.sigma_train) - 1, len(matrix.sigma_infer)), np.nan)
        for row in rows.itertuples():
            train, infer = (
                matrix.sigma_train.index(row.sigma_train),
                matrix.sigma_infer.index(row.sigma_infer),
            )
            values[:, train - 1, infer] = row.effect, row.low, row.high, row.p_holm
        effect, low, high, p = values
        return Differences(effect, low, high, p < ALPHA)

    def text(self) -> str:
        """Return the findings as plain text."""
        lines = [self.setting, ""]
        for question, title in QUESTIONS.items():
            answers = [answer for answer in self.answers if answer.question == question]
            if not answers:
                continue
            lines += [title, *(f"  {_line(answer)}" for answer in answers), *_tests(answers, "  "), ""]
        return "\n".join([*lines, "What limits these answers", *(f"  {note}" for note in self.notes), ""])

    def markdown(self) -> str:
        """Return the findings in Markdown, with the matrices as tables."""
        lines = ["# Findings", "", self.setting, ""]
        for question, title in QUESTIONS.items():
            answers = [answer for answer in self.answers if answer.question == question]
            if not answers:
                continue
            lines += [f"## {title}", ""]
            lines += [
                f"- **{answer.about}**: "
                + (f"*{answer.verdict}*. " if answer.verdict != "estimate" else "")
                + answer.sentence
                for answer in answers
            ]
            lines += ["", *_tests(answers, ""), ""]
        lines += [
            "## What limits these answers",
            "",
            *(f"- {note}" for note in self.notes),
            "",
            "## Accuracy (%)",
            "",
        ]
        for matrix, label in zip(self.matrices, self.labels, strict=True):
            interval = "95 % interval over seeds" if np.isfinite(matrix.interval()).any() else TOO_FEW_SEEDS
            lines += [f"**{label}**; mean over {_count(len(matrix.seeds), 'seed')}, {interval}", ""]
            lines += [_matrix_markdown(matrix), ""]
        return "\n".join(lines)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _line(answer: Answer) -> str:
    verdict = f"{answer.verdict}. " if answer.verdict != "estimate" else ""
    return f"{answer.about}: {verdict}{answer.sentence}"


def _tests(answers: Iterable[Answer], indent: str) -> list[str]:
    return [
        f"{indent}Test: {test}" for test in dict.fromkeys(answer.test for answer in answers if answer.test)
    ]


def _matrix_markdown(matrix: Matrix) -> str:
    mean, (low, high) = matrix.mean, matrix.interval()
    head = ["σ_train \\ σ_infer", *(f"{sigma:g}" for sigma in matrix.sigma_infer)]
    rows = [head, ["---:"] * len(head)]
    for place, sigma in enumerate(matrix.sigma_train):
        row = [f"{sigma:g}"]
        for level in range(len(matrix.sigma_infer)):
            half = (high[place, level] - low[place, level]) / 2
            text = "" if math.isnan(mean[place, level]) else f"{100 * mean[place, level]:.1f}"
            row.append(text + ("" if math.isnan(half) else f" ± {100 * half:.1f}"))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def find(frame: pd.DataFrame, levels: Sequence[float] | None = None, relevant: float = 0.01) -> Findings:
    """Return what a ledger's results say.

    Every test is over seeds, that is over trainings: what it says holds for other trainings on the same data, tested
    on the same clips. Each architecture is a family of tests of its own.

    Args:
        frame: see :data:`asr_dni.study.ledger.COLUMNS`.
        levels: sigma_infer at which the trend with the number of units is asked; ``None``: the lowest, the middle and
            the highest measured.
        relevant: smallest difference in accuracy that matters: a claim is "not supported" where all effects of at least
            so much are ruled out.

    Raises:
        UserError: there are no results, or a column is missing.
    """
    matrices, notes = make_matrices_with_notes(frame)
    labels = label_matrices(matrices)
    tables: dict[str, pd.DataFrame] = {
        "matrix": pd.concat([_matrix_table(matrix) for matrix in matrices], ignore_index=True),
        "curves": pd.concat([_curve_table(matrix) for matrix in matrices], ignore_index=True),
    }
    answers: list[Answer] = []
    per_matrix: Any = (
        ("flatter", _flatter),
        ("best", _best),
        ("above_clean", _above_clean),
        ("clean_inference", _clean_inference),
        ("difference", _difference),
    )
    for name, function in per_matrix:
        found = []
        for matrix, label in zip(matrices, labels, strict=True):
            table, answer = function(matrix, label, relevant)
            found.append(_with_key(matrix.key, table))
            answers += [answer] if answer else []
        tables[name] = pd.concat(found, ignore_index=True)
    for name, (table, more) in {
        "units": _units(matrices, levels),
        "schedules": _schedules(matrices, relevant),
    }.items():
        tables[name] = table
        answers += more
    for family, label in zip(
        sizes := _families(matrices, "units"), _family_labels(sizes, "units"), strict=True
    ):
        pooled = _mean_over_sizes(family)
        if pooled is None:
            continue
        label = f"{label}, mean over {_sigmas(matrix.key['units'] for matrix in family)} units"
        for name, function in (("above_clean", _above_clean), ("clean_inference", _clean_inference)):
            table, answer = function(pooled, label, relevant)
            tables[name] = pd.concat([tables[name], _with_key(pooled.key, table)], ignore_index=True)
            answers += [answer] if answer else []
    tables["missing"] = _missing(matrices, labels)
    return Findings(
        tuple(matrices),
        tuple(answers),
        tables,
        tuple(notes + _limits(frame, matrices, tables["missing"])),
        _sentence_case(describe_shared(matrices)) + ".",
        tuple(labels),
    )


def rows_of(table: pd.DataFrame, matrix: Matrix) -> pd.DataFrame:
    """Return a table's rows of one matrix."""
    if table.empty:
        return table
    keep = np.ones(len(table), dtype=bool)
    for name in KEYS:
        keep &= (table[name] == matrix.key[name]).to_numpy()
    return table[keep]


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_key(key: Mapping[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    front = pd.DataFrame({name: [key[name]] * len(table) for name in KEYS})
    return pd.concat([front, table.reset_index(drop=True)], axis=1)


def _matrix_table(matrix: Matrix) -> pd.DataFrame:
    low, high = matrix.interval()
    train, infer = np.meshgrid(matrix.sigma_train, matrix.sigma_infer, indexing="ij")
    table = pd.DataFrame(
        {
            "sigma_train": train.ravel(),
            "sigma_infer": infer.ravel(),
            "snr_db": np.broadcast_to(matrix.snr_db, train.shape).ravel(),
            "accuracy": matrix.mean.ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "n_seeds": matrix.n_seeds.ravel(),
            "n_draws": np.broadcast_to(matrix.n_draws, train.shape).ravel(),
            "n_clips": matrix.n_clips,
            "chance": matrix.chance,
        }
    )
    return _with_key(matrix.key, table)


def _curve_table(matrix: Matrix) -> pd.DataFrame:
    """Return a row per sigma_train: what the whole curve comes to."""
    area, (loss, counting_of_loss) = matrix.mean_over_levels(), _loss_to_noise(matrix)
    measures = {
        "lowest_noise": (matrix.accuracy[:, 0], matrix.counting),
        "highest_noise": (matrix.accuracy[:, -1], matrix.counting),
        "mean_over_levels": (area, matrix.counting),
        "loss_to_noise": (loss, counting_of_loss),
    }
    table = pd.DataFrame({"sigma_train": matrix.sigma_train})
    for name, (values, counting) in measures.items():
        tests = student_t_tests(values, counting)
        table[name], table[f"{name}_low"], table[f"{name}_high"] = tests.effect, tests.low, tests.high
    # The median over seeds, since a midpoint may lie beyond the highest level.
    midpoints = matrix.midpoints()
    table["midpoint"] = [
        float(np.median(row[~np.isnan(row)])) if (~np.isnan(row)).any() else math.nan for row in midpoints
    ]
    return _with_key(matrix.key, table)


def _loss_to_noise(matrix: Matrix) -> tuple[Array, float]:
    """Return what noise costs, ``(T, S)``: clean accuracy less that over all levels; and what counting makes of it."""
    weights = np.eye(1, len(matrix.sigma_infer))[0] - matrix.level_weights
    loss: Array = np.einsum("i,tis->ts", weights, matrix.accuracy)
    return loss, matrix.counting * float(np.abs(weights).sum())


def _test_table(tests: Tests, columns: Mapping[str, Any], test: str, family: str) -> pd.DataFrame:
    corrected = holm(tests.p.ravel())
    made = int(np.isfinite(corrected).sum())
    return pd.DataFrame(
        {
            **columns,
            "effect": tests.effect.ravel(),
            "low": tests.low.ravel(),
            "high": tests.high.ravel(),
            "n_seeds": tests.n.ravel(),
            "p": tests.p.ravel(),
            "p_holm": corrected,
            "upper_all": tests.upper(made).ravel(),
            "test": test,
            "family": f"{family} ({made} tests)",
        }
    )


def _judge(table: pd.DataFrame, relevant: float) -> Verdict:
    """Return whether some effect of a table is above 0, whether all that matter are ruled out, or neither."""
    tested = table[table["p_holm"].notna()]
    if tested.empty and len(table):
        return "cannot be tested"
    if ((tested["p_holm"] < ALPHA) & (tested["effect"] > 0)).any():
        return "supports"
    if len(tested) and len(tested) == len(table) and (tested["upper_all"] < relevant).all():
        return "does not support"
    return "cannot tell"


def _points(value: float, sign: bool = True) -> str:
    return f"{round(100 * value, 1) + 0.0:{'+' if sign else ''}.1f}".replace("-", "−")


def _effect(row: Any, sign: bool = True) -> str:
    if math.isnan(row.low):
        return f"{_points(row.effect, sign)} points, {TOO_FEW_SEEDS}"
    interval = f"[{_points(row.low, sign)}, {_points(row.high, sign)}]"
    return f"{_points(row.effect, sign)} points {interval}" + _p(row.p_holm)


def _p(p: float) -> str:
    return "" if math.isnan(p) else (", corrected p < 0.001" if p < 0.001 else f", corrected p {p:.2g}")


def _sigmas(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _largest(table: pd.DataFrame) -> Any:
    known = table[table["effect"].notna()]
    return next(known.sort_values("effect", ascending=False).itertuples(), None)


def _significant(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["p_holm"] < ALPHA) & (table["effect"] > 0)]


def _no_question(matrix: Matrix, label: str, question: str, clean: bool) -> Answer | None:
    """Return why a comparison with conventional training can't be made, if so."""
    reason = None
    if matrix.sigma_train[0] != 0:
        reason = "conventional training (sigma_train 0) is missing"
    elif len(matrix.sigma_train) < 2:
        reason = "there is no training under noise"
    elif clean and matrix.sigma_infer[0] != 0:
        reason = "clean inference (sigma_infer 0) was not measured"
    if reason is None:
        return None
    return Answer(question, label, matrix.key, "cannot tell", f"This can't be asked: {reason}.", "")


def _untested(table: pd.DataFrame) -> str:
    most = int(table["n_seeds"].max())
    if most >= MIN_SEEDS:
        return ""
    are = "is one seed" if most == 1 else f"are {most} seeds"
    return f" There {are} only, of {MIN_SEEDS} that a test needs: it cannot be tested, and may be chance."


_EMPTY = pd.DataFrame()


def _flatter(matrix: Matrix, label: str, relevant: float) -> tuple[pd.DataFrame, Answer | None]:
    refused = _no_question(matrix, label, "flatter", clean=True)
    if refused is None and len(matrix.sigma_infer) < 2:
        refused = Answer("flatter", label, matrix.key, "cannot tell", "One sigma_infer makes no curve.", "")
    if refused:
        return _EMPTY, refused
    area, (loss, counting) = matrix.mean_over_levels(), _loss_to_noise(matrix)
    count = len(matrix.sigma_train) - 1
    tests = student_t_tests(
        np.concatenate([loss[:1] - loss[1:], area[1:] - area[:1]]),
        math.sqrt(2) * np.repeat([counting, matrix.counting], count),
    )
    table = _test_table(
        tests,
        {
            "measure": ["less lost to noise"] * count + ["more accurate over all noise"] * count,
            "sigma_train": list(matrix.sigma_train[1:]) * 2,
        },
        f"{_PAIRED}, two-sided",
        "both measures at every sigma_train > 0 of this architecture",
    )
    flat, high = table.iloc[:count], table.iloc[count:]
    verdict, best, higher = _judge(flat, relevant), _largest(flat), _largest(high)
    if best is None or higher is None:
        return table, Answer(
            "flatter",
            label,
            matrix.key,
            "cannot tell",
            "No seed has both a conventional and a noisy training.",
            "",
        )
    top = matrix.sigma_infer[-1]
    lost = student_t_tests(loss[:1], counting)
    sentence = (
        f"Averaged over noise from 0 to {top:g}, conventional training loses"
        f" {_points(float(lost.effect[0]), sign=False)} points of its clean accuracy."
    )
    flatter, better = _significant(flat), _significant(high)
    if len(flatter):
        best = _largest(flatter)
        sentence += f" DNI loses less at sigma_train {_sigmas(flatter['sigma_train'])}:"
        sentence += (
            f" at {best.sigma_train:g} the loss differs in favour of DNI by {_effect(best, sign=False)}."
        )
    elif verdict == "does not support":
        sentence += (
            f" No sigma_train loses {_points(relevant, sign=False)} points less; the most is {_effect(best)}"
        )
        sentence += f" at {best.sigma_train:g}."
    else:
        sentence += f" The largest difference in favour of DNI, at sigma_train {best.sigma_train:g}, is"
        sentence += f" {_effect(best, sign=False)}."
    if len(better):
        higher = _largest(better)
        sentence += (
            f" It is also more accurate over all this noise at sigma_train {_sigmas(better['sigma_train'])}"
        )
        sentence += f" (most at {higher.sigma_train:g}: {_effect(higher)})."
    elif len(flatter):
        sentence += " But it is not shown to be more accurate over this noise: its curve may be flat because it is low."
    test = (
        f"{_PAIRED}, two-sided, of (clean accuracy − accuracy averaged over sigma_infer, as the area below the"
        " curve) and of that average; Holm over both measures and every sigma_train > 0 of the architecture."
    )
    return table, Answer("flatter", label, matrix.key, verdict, sentence + _untested(table), test)


def _best(matrix: Matrix, label: str, relevant: float) -> tuple[pd.DataFrame, Answer | None]:
    """Return for each sigma_infer the best sigma_train, and a set that holds the truly best one with 95 %.

    See :func:`~asr_dni.study.hypothesis_tests.some_other_is_better`.
    """
    rivals = len(matrix.sigma_train)
    if rivals < 2:
        return _EMPTY, None
    mean, rows = matrix.mean, []
    for level, sigma in enumerate(matrix.sigma_infer):
        accuracy = matrix.accuracy[:, level]
        if not np.isfinite(mean[:, level]).any():
            continue
        best = int(np.nanargmax(mean[:, level]))
        corrected, made = some_other_is_better(accuracy, matrix.counting)
        against = student_t_tests(accuracy[best] - accuracy, matrix.counting * math.sqrt(2))
        for place, train in enumerate(matrix.sigma_train):
            if math.isnan(mean[place, level]):
                continue
            rows.append(
                {
                    "sigma_infer": sigma,
                    "sigma_train": train,
                    "accuracy": mean[place, level],
                    "best": place == best,
                    "in_set": not corrected[place] < ALPHA,
                    "behind_best": against.effect[place],
                    "low": against.low[place] if place != best else math.nan,
                    "high": against.high[place] if place != best else math.nan,
                    "n_seeds": int(matrix.n_seeds[place, level]),
                    "p_some_other_is_better": corrected[place],
                    "family": f"the {made[place]} other sigma_train at this sigma_infer",
                }
            )
    table = pd.DataFrame(rows)
    parts = []
    for at, group in table.groupby("sigma_infer"):
        chosen = float(group.loc[group["best"], "sigma_train"].iloc[0])
        others = [value for value in group.loc[group["in_set"], "sigma_train"] if value != chosen]
        if len(others) == len(group) - 1:
            also = " (or any other)"
        else:
            also = f" (or {_sigmas(others)})" if others else " (alone)"
        parts.append(f"{float(str(at)):g} → {chosen:g}{also}")
    sentence = "; ".join(parts) + "."
    test = (
        "sigma_infer → best sigma_train (or others that may be the best); these together hold the truly best one with"
        " 95 % at each sigma_infer: a sigma_train is out if another is better,"
        " paired Student t test over seeds, one-sided, corrected (Bonferroni) over its rivals at that sigma_infer."
    )
    return table, Answer("best", label, matrix.key, "estimate", sentence + _untested(table), test)


def _pairs_above(matrix: Matrix, places: slice) -> tuple[Tests, dict[str, Any]]:
    conventional = matrix.accuracy[0, 0]
    differences = matrix.accuracy[1:, places] - conventional
    train, infer = np.meshgrid(matrix.sigma_train[1:], matrix.sigma_infer[places], indexing="ij")
    tests = student_t_tests(differences, matrix.counting * math.sqrt(2), "greater")
    return tests, {"sigma_train": train.ravel(), "sigma_infer": infer.ravel()}


def _above_clean(matrix: Matrix, label: str, relevant: float) -> tuple[pd.DataFrame, Answer | None]:
    refused = _no_question(matrix, label, "above_clean", clean=True)
    if refused is None and len(matrix.sigma_infer) < 2:
        refused = Answer(
            "above_clean", label, matrix.key, "cannot tell", "There is no sigma_infer above 0.", ""
        )
    if refused:
        return _EMPTY, refused
    tests, columns = _pairs_above(matrix, slice(1, None))
    table = _test_table(
        tests,
        columns,
        f"{_PAIRED}, one-sided",
        "all pairs (sigma_train > 0, sigma_infer > 0) of this architecture",
    )
    test = f"{_PAIRED}, one-sided (above); Holm over all pairs of the architecture with both sigmas above 0."
    return table, _above_answer(matrix, label, table, "above_clean", relevant, test)


def _clean_inference(matrix: Matrix, label: str, relevant: float) -> tuple[pd.DataFrame, Answer | None]:
    refused = _no_question(matrix, label, "clean_inference", clean=True)
    if refused:
        return _EMPTY, refused
    tests, columns = _pairs_above(matrix, slice(0, 1))
    table = _test_table(
        tests, columns, f"{_PAIRED}, one-sided", "every sigma_train > 0 of this architecture at sigma_infer 0"
    )
    test = f"{_PAIRED}, one-sided (above); Holm over every sigma_train > 0 of the architecture."
    return table, _above_answer(matrix, label, table, "clean_inference", relevant, test)


def _above_answer(
    matrix: Matrix, label: str, table: pd.DataFrame, question: str, relevant: float, test: str
) -> Answer:
    verdict, best, above = _judge(table, relevant), _largest(table), _significant(table)
    if best is None:
        text = "No seed has both a conventional and a noisy training."
        return Answer(question, label, matrix.key, "cannot tell", text, "")
    base = _points(float(np.nanmean(matrix.accuracy[0, 0])), sign=False)
    reference = f"{base} % of conventional training with clean inference"
    noun = "pairs" if question == "above_clean" else "levels of training noise"

    def name(row: Any) -> str:
        return (
            f"({row.sigma_train:g}, {row.sigma_infer:g})"
            if question == "above_clean"
            else f"{row.sigma_train:g}"
        )

    if len(above):
        best = _largest(above)
        ordered = above.sort_values("effect", ascending=False)
        shown = ", ".join(name(row) for row in ordered.head(6).itertuples())
        more = f" and {len(ordered) - 6} more" if len(ordered) > 6 else ""
        is_are = "is" if len(above) == 1 else "are"
        sentence = f"{len(above)} of {len(table)} {noun} {is_are} above the {reference}: {shown}{more};"
        sentence += f" {'the most, ' + name(best) + ', ' if len(above) > 1 else ''}by {_effect(best)}."
        sentence += " The largest of many is likely overestimated." if len(table) > 1 else ""
    elif verdict == "does not support":
        sentence = f"None of {len(table)} {noun} is above the {reference} by {_points(relevant, sign=False)} points or"
        sentence += f" more; the highest, {name(best)}, differs by {_effect(best)}."
    else:
        sentence = (
            f"None of {len(table)} {noun} is shown to be above the {reference}, but not all are ruled out;"
        )
        sentence += f" the highest, {name(best)}, differs by {_effect(best)}."
    return Answer(question, label, matrix.key, verdict, sentence + _untested(table), test)


def _difference(matrix: Matrix, label: str, relevant: float) -> tuple[pd.DataFrame, None]:
    """Return the difference to conventional training at the same sigma_infer, everywhere."""
    if _no_question(matrix, label, "", clean=False):
        return _EMPTY, None
    train, infer = np.meshgrid(matrix.sigma_train[1:], matrix.sigma_infer, indexing="ij")
    tests = student_t_tests(matrix.accuracy[1:] - matrix.accuracy[:1], matrix.counting * math.sqrt(2))
    table = _test_table(
        tests,
        {"sigma_train": train.ravel(), "sigma_infer": infer.ravel()},
        f"{_PAIRED}, two-sided",
        "all pairs (sigma_train > 0, sigma_infer) of this architecture",
    )
    return table, None


def _families(matrices: Sequence[Matrix], without: str) -> list[list[Matrix]]:
    """Return matrices that differ in one name only, together."""
    found: dict[tuple[Any, ...], list[Matrix]] = {}
    for matrix in matrices:
        found.setdefault(tuple(matrix.key[name] for name in KEYS if name != without), []).append(matrix)
    return [group for group in found.values() if len(group) > 1]


def _aligned(matrices: Sequence[Matrix]) -> tuple[list[float], list[float], list[str], Array]:
    """Return the levels and seeds that all have, and their accuracies ``(M, T, I, S)``."""

    def common(lists: Iterable[Sequence[Any]]) -> list[Any]:
        first, *others = lists
        return [value for value in first if all(value in other for other in others)]

    train = common(matrix.sigma_train for matrix in matrices)
    infer = common(matrix.sigma_infer for matrix in matrices)
    seeds = common(matrix.seeds for matrix in matrices)
    picked = [
        matrix.accuracy[
            np.ix_(
                [matrix.sigma_train.index(value) for value in train],
                [matrix.sigma_infer.index(value) for value in infer],
                [matrix.seeds.index(value) for value in seeds],
            )
        ]
        for matrix in matrices
    ]
    return train, infer, seeds, np.stack(picked)


def _mean_over_sizes(family: Sequence[Matrix]) -> Matrix | None:
    """Return the mean of a cell's sizes, seed by seed, which varies less than one size and so shows smaller effects."""
    train, infer, seeds, accuracy = _aligned(family)
    if not (train and infer and seeds):
        return None
    first = family[0]
    return Matrix(
        _without(first.key, "units"),
        tuple(train),
        tuple(infer),
        tuple(seeds),
        accuracy.mean(axis=0),
        np.full(len(infer), np.nan),
        min(matrix.n_clips for matrix in family),
        np.ones(len(infer), dtype=np.int64),
        n_networks=len(family),
    )


def _units(matrices: Sequence[Matrix], levels: Sequence[float] | None) -> tuple[pd.DataFrame, list[Answer]]:
    """Return slopes over log2 units: a line through each seed's sizes, and a t test of the seeds' slopes."""
    families = _families(matrices, "units")
    labels = _family_labels(families, "units")
    tables, answers = [], []
    for family, label in zip(families, labels, strict=True):
        train, infer, _, accuracy = _aligned(family)
        chosen = [
            level for level in infer if levels is None or any(math.isclose(level, one) for one in levels)
        ]
        if levels is None and chosen:
            chosen = sorted({chosen[0], chosen[len(chosen) // 2], chosen[-1]})
        test = (
            "slope of accuracy over log2(units) for every seed, two-sided Student t test of the mean slope over seeds;"
            " Holm over all slopes of the cell in the table."
        )
        if not train or not chosen or accuracy.shape[-1] == 0:
            text = "The sizes have no sigma_train, sigma_infer and seed in common."
            answers.append(Answer("units", label, _without(family[0].key, "units"), "cannot tell", text, ""))
            continue
        x = np.log2([matrix.key["units"] for matrix in family])
        x = x - x.mean()
        weights = x / (x @ x)
        slopes, measures, trains, infers = [], [], [], []
        for level in chosen:
            at = accuracy[:, :, infer.index(level)]  # (M, T, S)
            slope = np.einsum("m,mts->ts", weights, at)
            slopes.append(slope)
            measures += ["accuracy"] * len(train)
            trains += train
            infers += [level] * len(train)
            if train[0] == 0 and len(train) > 1:
                slopes.append(slope[1:] - slope[:1])
                measures += ["advantage over conventional"] * (len(train) - 1)
                trains += train[1:]
                infers += [level] * (len(train) - 1)
        counting = max(matrix.counting for matrix in family) * float(np.sqrt(weights @ weights))
        networks = np.where(np.array(measures) == "accuracy", 1, 2)
        tests = student_t_tests(np.concatenate(slopes), counting * np.sqrt(networks))
        table = _test_table(
            tests,
            {"measure": measures, "sigma_train": trains, "sigma_infer": infers, "sizes": len(family)},
            "Student t test of the slope over log2(units), over seeds, two-sided",
            "all slopes of this cell",
        )
        key = _without(family[0].key, "units")
        tables.append(_with_key(key, table))
        sizes = _sigmas(matrix.key["units"] for matrix in family)
        parts = []
        for level in chosen:
            here = table[(table["sigma_infer"] == level) & table["effect"].notna()]
            own = here[(here["measure"] == "accuracy") & (here["sigma_train"] == train[0])]
            name = "conventional training" if train[0] == 0 else f"sigma_train {train[0]:g}"
            part = [f"{name} {_effect(row)}" for row in own.itertuples()]
            gains = here[here["measure"] == "advantage over conventional"]
            if len(gains):
                strongest = next(
                    gains.reindex(gains["effect"].abs().sort_values(ascending=False).index).itertuples()
                )
                part.append(
                    f"DNI's advantage over it, at sigma_train {strongest.sigma_train:g} where it changes most,"
                    f" {_effect(strongest)}"
                )
            parts += [f"at sigma_infer {level:g} {', and '.join(part)}"] if part else []
        sentence = f"Per doubling of the units ({sizes}): " + "; ".join(parts) + "."
        answers.append(Answer("units", label, key, "estimate", sentence + _untested(table), test))
    return (pd.concat(tables, ignore_index=True) if tables else _EMPTY), answers


def _without(key: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**key, name: None}


def _family_labels(families: Sequence[Sequence[Matrix]], without: str) -> list[str]:
    firsts = [family[0] for family in families]
    varying = [name for name in varying_keys(firsts) if name != without] if firsts else []
    names = [name for name in ["cell", "units"] if name != without]
    names += [name for name in varying if name not in names]
    return [describe_key(first.key, names) for first in firsts]


def _schedules(matrices: Sequence[Matrix], relevant: float) -> tuple[pd.DataFrame, list[Answer]]:
    families = _families([matrix for matrix in matrices if matrix.key["schedule"]], "schedule")
    labels = _family_labels(families, "schedule")
    tables, answers = [], []
    for family, label in zip(families, labels, strict=True):
        constant = next((matrix for matrix in family if matrix.key["schedule"] == "constant"), None)
        key = _without(family[0].key, "schedule")
        if constant is None:
            text = "This can't be asked: constant noise is missing."
            answers.append(Answer("schedules", label, key, "cannot tell", text, ""))
            continue
        differences: list[Array] = []
        columns: dict[str, list[Any]] = {"schedule": [], "measure": [], "sigma_train": []}
        for other in family:
            if other is constant:
                continue
            train, infer, seeds, accuracy = _aligned([constant, other])
            noisy = [place for place, sigma in enumerate(train) if sigma > 0]
            if not noisy or not infer or not seeds:
                continue
            pair = [
                replace(
                    constant,
                    sigma_train=tuple(train),
                    sigma_infer=tuple(infer),
                    seeds=tuple(seeds),
                    accuracy=one,
                )
                for one in accuracy
            ]
            area = pair[1].mean_over_levels() - pair[0].mean_over_levels()
            for measure, values in (
                ("accuracy averaged over sigma_infer", area),
                (f"accuracy at sigma_infer {infer[0]:g}", accuracy[1, :, 0] - accuracy[0, :, 0]),
            ):
                full = np.full((len(noisy), len(constant.seeds)), np.nan)
                full[:, [constant.seeds.index(seed) for seed in seeds]] = values[noisy]
                differences.append(full)
                columns["schedule"] += [other.key["schedule"]] * len(noisy)
                columns["measure"] += [measure] * len(noisy)
                columns["sigma_train"] += [train[place] for place in noisy]
        if not differences:
            text = "The schedules have no sigma_train above 0 and seed in common."
            answers.append(Answer("schedules", label, key, "cannot tell", text, ""))
            continue
        tests = student_t_tests(np.concatenate(differences), constant.counting * math.sqrt(2))
        table = _test_table(
            tests,
            columns,
            f"{_PAIRED}, two-sided",
            "all schedules, sigma_train and both measures of this architecture",
        )
        front = _with_key(key, table.drop(columns="schedule"))
        front["schedule"] = table["schedule"]
        tables.append(front)
        test = (
            f"{_PAIRED}, two-sided, against constant noise of the same sigma_train, of accuracy averaged over"
            " sigma_infer and of accuracy at the lowest; Holm over schedules, sigma_train and both measures of the"
            " architecture."
        )
        for other_name, rows in table.groupby("schedule", sort=False):
            averaged = rows[rows["measure"] == "accuracy averaged over sigma_infer"]
            parts = []
            for measured, own in rows.groupby("measure", sort=False):
                best = _largest(own)
                if best is None:
                    continue
                better, worse = _significant(own), own[(own["p_holm"] < ALPHA) & (own["effect"] < 0)]
                part = f"{measured}: "
                part += f"better at sigma_train {_sigmas(better['sigma_train'])}, " if len(better) else ""
                part += f"worse at sigma_train {_sigmas(worse['sigma_train'])}, " if len(worse) else ""
                part += "" if len(better) or len(worse) else "no difference shown, "
                parts.append(part + f"at best (sigma_train {best.sigma_train:g}) {_effect(best)}")
            sentence = f"{_sentence_case(str(other_name))} against constant: " + "; ".join(parts) + "."
            verdict = _judge(averaged, relevant)
            answers.append(Answer("schedules", label, key, verdict, sentence + _untested(rows), test))
    return (pd.concat(tables, ignore_index=True) if tables else _EMPTY), answers


def _missing(matrices: Sequence[Matrix], labels: Sequence[str]) -> pd.DataFrame:
    """Return what a full matrix would have: every sigma_train and seed that its likes have, at every sigma_infer."""

    def like(matrix: Matrix) -> tuple[Any, ...]:
        return tuple(
            matrix.key[name] for name in KEYS if name not in ("cell", "units", "layers", "bidirectional")
        )

    expected: dict[tuple[Any, ...], tuple[set[float], set[str], set[float]]] = {}
    for matrix in matrices:
        train, seeds, infer = expected.setdefault(like(matrix), (set(), set(), set()))
        train |= set(matrix.sigma_train)
        seeds |= set(matrix.seeds)
        infer |= set(matrix.sigma_infer)
    rows: list[dict[str, Any]] = []
    for matrix, label in zip(matrices, labels, strict=True):
        all_train, all_seeds, all_infer = expected[like(matrix)]
        for sigma in sorted(all_train):
            for seed in sorted(all_seeds, key=lambda name: [int(part) for part in name.split("/")]):
                there: set[float] = set()
                if sigma in matrix.sigma_train and seed in matrix.seeds:
                    row = matrix.accuracy[matrix.sigma_train.index(sigma), :, matrix.seeds.index(seed)]
                    there = {
                        one
                        for one, value in zip(matrix.sigma_infer, row, strict=True)
                        if math.isfinite(value)
                    }
                absent = sorted(all_infer - there)
                if absent:
                    what = "the whole member" if not there else f"sigma_infer {_sigmas(absent)}"
                    rows.append({"matrix": label, "sigma_train": sigma, "seed": seed, "missing": what})
    return pd.DataFrame(rows, columns=["matrix", "sigma_train", "seed", "missing"])


def _power(matrices: Sequence[Matrix]) -> list[str]:
    """Say which differences the tests would have found, by how much the trainings of these studies differ."""
    spreads, counts, families = [], [], []
    for matrix in matrices:
        if matrix.conventional is None or len(matrix.sigma_train) < 2:
            continue
        tests = student_t_tests(matrix.accuracy[1:] - matrix.accuracy[:1], matrix.counting * math.sqrt(2))
        deviations = (tests.error * np.sqrt(tests.n))[np.isfinite(tests.error)]
        if deviations.size:
            spreads.append(float(np.median(deviations)))
            counts.append(int(tests.n.max()))
            families.append(len(matrix.sigma_train) - 1)
    if not spreads:
        return []
    spread, n, levels = float(np.median(spreads)), min(counts), max(families)
    one, corrected = (100 * spread * detectable_effect(n, tests) for tests in (1, levels))
    among = (
        f", one of {levels} that are corrected for is if it is {corrected:.1f} points" if levels > 1 else ""
    )
    return [
        f"Power: with {n} seeds, whose differences vary by {100 * spread:.1f} points (standard deviation, median), a"
        f" true difference is found with 80 % probability if it is {one:.1f} points{among}."
        ' "Cannot tell" does not mean that there is no effect.'
    ]


def _limits(frame: pd.DataFrame, matrices: Sequence[Matrix], missing: pd.DataFrame) -> list[str]:
    notes = []
    fewest = min(len(matrix.seeds) for matrix in matrices)
    if fewest < MIN_SEEDS:
        notes.append(
            f"Some matrices have {_count(fewest, 'seed')}: nothing can be tested there, and there is no interval. Train"
            f" at least {MIN_SEEDS}, better 5."
        )
    notes += _power(matrices)
    if len(missing):
        shown = [
            f"{row.matrix}, sigma_train {row.sigma_train:g}, seed {row.seed}"
            + ("" if row.missing == "the whole member" else f" ({row.missing})")
            for row in missing.head(5).itertuples()
        ]
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        notes.append(f"Missing: {'; '.join(shown)}{more}. Comparisons use the seeds that both sides have.")
    if not any(matrix.sigma_train[0] == 0 for matrix in matrices):
        notes.append("There is no conventional training (sigma_train 0) to compare with.")
    families = len(matrices)
    if families > 1:
        notes.append(
            f"Each of the {families} architectures and settings is a family of tests of its own, with 5 % for any false"
            f" alarm in it: if there were no effects at all, about {0.05 * families:.2g} of them would show one in each"
            " question."
        )
    notes.append(
        "Intervals and tests are over trainings (seeds): they say what other trainings would give on the same test"
        " clips, not what other clips would give. The t test takes the seeds' differences to be normally distributed,"
        " and to vary by no less than counting in whole clips makes them."
    )
    clips = min(matrix.n_clips for matrix in matrices)
    worst = math.sqrt(0.25 / clips)
    notes.append(
        f"With {clips} test clips the accuracy of one network on all clips of this kind is known to about"
        f" ±{100 * 1.96 * worst:.1f} points at worst (95 %)."
    )
    if "code_version" in frame.columns and frame["code_version"].nunique() > 1:
        versions = ", ".join(sorted(map(str, frame["code_version"].unique())))
        notes.append(f"The results were made by several versions of the program: {versions}.")
    return notes
