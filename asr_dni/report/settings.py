"""Tables of settings: what differs between experiments, and what all have in common."""

from collections.abc import Iterator, Mapping

from asr_dni.catalogue import Run
from asr_dni.catalogue.naming import OF_THE_START
from asr_dni.catalogue.settings_book import flat
from asr_dni.report.document import Table

_NOT_THERE = "–"


def settings_tables(runs: Mapping[str, Run]) -> Iterator[Table]:
    """Yield the settings in which experiments differ, a column each, and those that all have in common.

    Args:
        runs: by name; of each experiment the first that has settings counts, and no damaged one where others are whole.
    """
    experiments: dict[str, dict[str, str]] = {}
    known = set()
    whole = {name: run for name, run in runs.items() if run.state != "damaged"}
    for name, run in (whole or runs).items():
        if not run.settings or run.experiment in known:
            continue
        known.add(run.experiment)
        own = {key: _text(value) for key, value in flat(run.settings).items() if key not in OF_THE_START}
        experiments[run.label if run.label not in experiments else f"{run.label}, {name}"] = own
    if not experiments:
        return
    keys = list(dict.fromkeys(key for own in experiments.values() for key in own))
    values = {key: [own.get(key, _NOT_THERE) for own in experiments.values()] for key in keys}
    differing = [key for key in keys if len(set(values[key])) > 1]
    if differing:
        rows = tuple((key, *values[key]) for key in differing)
        yield Table("Settings that differ", ("setting", *experiments), rows)
    common = tuple((key, values[key][0]) for key in keys if key not in differing)
    if common:
        title = "Settings that all have in common" if len(experiments) > 1 else "Settings"
        yield Table(title, ("setting", "value"), common, folded=True)


def _text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "[]"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(one)}" for key, one in value.items()) or "{}"
    return str(value)
