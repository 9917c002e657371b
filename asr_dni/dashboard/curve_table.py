"""The table of runs beside the curves: its columns and rows, as AG Grid has them."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import dash_ag_grid as dag
from dash.development.base_component import Component

from asr_dni.catalogue.catalogue import SETTING
from asr_dni.dashboard.groups import Group, Groups, Listing

# The page's colours, which follow its theme.
GRID_THEME = (
    "themeQuartz.withParams({backgroundColor: 'var(--surface)', foregroundColor: 'var(--ink)',"
    " headerBackgroundColor: 'var(--ground)', borderColor: 'var(--line)', accentColor: 'var(--accent)',"
    " browserColorScheme: 'inherit', selectedRowBackgroundColor: 'var(--accent-soft)',"
    " rowHoverColor: 'var(--accent-soft)', menuBackgroundColor: 'var(--surface)', fontSize: 13})"
)
"""How tables of ag-grid look, in the colours of the page."""

_FEW_COLUMNS = 5
_BEYOND = 1e12  # stands for what is beyond the measured levels: JSON has no infinity

_MISSING = "params.value == null ? '–' : "
_NUMBER = f"{_MISSING}params.value > 1e9 ? '> ' + params.data.highest : d3.format('.2f')(params.value)"
_PERCENT = f"{_MISSING}d3.format('.1f')(params.value)"


def default_columns(listing: Listing) -> list[str]:
    """Return the settings that the table shows at first: those in which runs differ, up to a few."""
    return list(listing.varying[:_FEW_COLUMNS])


def column_choices(listing: Listing) -> list[tuple[str, str]]:
    """Return all settings with their names, those in which runs differ first."""
    rest = [name for name in listing.settings if name not in listing.varying]
    return [(name, name.removeprefix(SETTING)) for name in (*listing.varying, *rest)]


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """Return the last parts of dotted names, with as many parts as tell them apart."""
    short = {}
    endings = Counter(name.rpartition(".")[2] for name in names)
    for name in names:
        parts = name.split(".")
        short[name] = parts[-1] if endings[parts[-1]] == 1 else ".".join(parts[-2:])
    return short


def columns_of(listing: Listing, settings: Sequence[str], sort: str = "") -> list[dict[str, Any]]:
    """Return the columns' definitions.

    Args:
        listing: what is in the table.
        settings: those to show.
        sort: ``COLUMN:asc`` or ``COLUMN:desc``.
    """
    symbol = listing.strength.symbol if listing.strength is not None else "strength"
    number = {"type": "rightAligned", "filter": "agNumberColumnFilter"}
    measured = {**number, "valueFormatter": {"function": _NUMBER}, "width": 128}
    percent = {**number, "valueFormatter": {"function": _PERCENT}, "width": 118}
    columns: list[dict[str, Any]] = [
        {"field": "label", "headerName": "Curve", "pinned": "left", "width": 240, "tooltipField": "label"},
        {"field": "seeds", "headerName": "Number of seeds", "width": 150, **number},
        {"field": "clean", "headerName": "Clean %", **percent},
        {"field": "area", "headerName": "Area %", "headerTooltip": "Mean accuracy over the axis", **percent},
        {
            "field": "midpoint",
            "headerName": "Midpoint",
            "headerTooltip": f"{symbol} half-way to chance",
            **measured,
        },
        {
            "field": "tolerable",
            "headerName": "Tolerable",
            "headerTooltip": f"Largest {symbol} within the loss",
            **measured,
        },
    ]
    for name, short in _short_names(settings).items():
        columns.append(
            {
                "field": _field(name),
                "headerName": short,
                "headerTooltip": name.removeprefix(SETTING),
                "width": 110,
            }
        )
    columns += [
        {
            "field": "state",
            "headerName": "State",
            "width": 120,
            "tooltipField": "message",
            "cellClassRules": {
                "state-running": "params.value.slice(0, 7) == 'running'",
                "state-damaged": "params.value.slice(0, 7) == 'damaged'",
            },
        },
        {"field": "changed", "headerName": "Changed", "width": 170},
    ]
    name, _, direction = sort.partition(":")
    for column in columns:
        if column["field"] == name and direction in ("asc", "desc"):
            column["sort"] = direction
    return columns


def _field(name: str) -> str:
    # A dot in a field's name would be a path into the row.
    return name.replace(".", "·")


def row_of(group: Group, groups: Groups, settings: Sequence[str]) -> dict[str, Any]:
    """Return a group's row.

    Args:
        group: the group.
        groups: that it is one of.
        settings: that the table shows.
    """
    own = group.row
    row = {name: own[name] for name in ("key", "label", "state", "message", "seeds", "highest")}
    row["runs"] = list(group.runs)
    row["changed"] = own["changed"].replace("T", " ")[:16]
    for name in ("clean", "area"):
        row[name] = None if own[name] is None or math.isnan(own[name]) else 100 * own[name]
    for name in ("midpoint", "tolerable"):
        value = own[name]
        row[name] = None if value is None or math.isnan(value) else min(value, _BEYOND)
    for name in settings:
        row[_field(name)] = own[name] if name in own else groups.setting(group, name)
    return row


def table(
    name: str,
    groups: Groups,
    listing: Listing,
    settings: Sequence[str],
    selected: Sequence[str],
    filters: str = "",
    sort: str = "",
    search: str = "",
) -> Component:
    """Return the grid.

    Args:
        name: its id.
        groups: of the listing.
        listing: its rows.
        settings: its columns beside measures and state.
        selected: keys of the rows that are drawn.
        filters: its filters, as JSON.
        sort: see :func:`columns_of`.
        search: text that rows have.
    """
    try:
        model = json.loads(filters) if filters else {}
    except ValueError:
        model = {}
    grid: Component = dag.AgGrid(
        id=name,
        columnDefs=columns_of(listing, settings, sort),
        rowData=[row_of(group, groups, settings) for group in listing.groups.values()],
        selectedRows={"ids": list(selected)},
        filterModel=model if isinstance(model, dict) else {},
        getRowId="params.data.key",
        defaultColDef={"filter": True, "sortable": True, "resizable": True},
        dashGridOptions={
            "rowSelection": {
                "mode": "multiRow",
                "headerCheckbox": True,
                "selectAll": "filtered",
                "enableClickSelection": False,
            },
            "selectionColumnDef": {"pinned": "left", "width": 46},
            "animateRows": False,
            "tooltipShowDelay": 300,
            "quickFilterText": search,
            "rowHeight": 36,
            "headerHeight": 38,
            "theme": {"function": GRID_THEME},
        },
        className="grid",
        style={"height": "560px"},
    )
    return grid
