"""A study's report: figures, tables, a summary in Markdown, and one page that needs no network."""

import base64
import html
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from asr_dni.evaluation.description import SCALE_UNITS
from asr_dni.evaluation.figures import save_figure
from asr_dni.files import write_atomically
from asr_dni.study.figures import draw_study
from asr_dni.study.findings import Findings, find, tests_of
from asr_dni.study.hypothesis_tests import TOO_FEW_SEEDS
from asr_dni.study.ledger import Ledger
from asr_dni.study.matrix import KEYS, Matrix, varying_keys

FIGURES = {
    "matrix": "Accuracy for every training and inference noise",
    "difference_to_clean": "Difference to conventional training with clean inference",
    "difference": "Difference to conventional training at the same noise",
    "curves": "Noise curves",
    "best": "Best training noise for each inference noise",
    "units": "Accuracy and the number of units",
}
"""What a report's figures show, by the beginning of their names, in the order of the report."""

_MANIFEST = ".report.json"
_COLORS = {
    "supports": "yes",
    "does not support": "no",
    "cannot tell": "open",
    "cannot be tested": "open",
    "estimate": "",
}


def report(
    ledger: Ledger | Path | str,
    directory: Path | str,
    levels: Sequence[float] | None = None,
    relevant: float = 0.01,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write what a study found so far.

    Written are ``index.html`` (everything on one page, with pictures to explore; self-contained),
    ``summary.md`` and ``.txt``, ``figures/*.png`` and ``*.svg``, and ``tables/*.csv`` and ``*.md``. Every file
    is written whole or not at all; files of an earlier report that are no longer part of it are removed.

    Args:
        ledger: the results, or their folder.
        directory: is made where it does not exist.
        levels: strengths at which the trend with the number of units is asked, see
            :func:`~asr_dni.study.findings.find`.
        relevant: smallest difference in accuracy that matters, see there.
        progress: is called with the name of every file as it is written.

    Returns:
        The files, ``index.html`` first.

    Raises:
        UserError: there are no results, or the ledger can't be read.
    """
    ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    directory = Path(directory)
    findings = find(ledger.frame(), levels, relevant)
    figures = _in_order(draw_study(findings))
    paths: list[Path] = []

    def written(*files: Path) -> None:
        paths.extend(files)
        for file in files:
            if progress is not None:
                progress(file.relative_to(directory).as_posix())

    for name, figure in figures.items():
        written(*save_figure(figure, directory / "figures" / name))
    for name, table in findings.tables.items():
        path = directory / "tables" / f"{name}.csv"
        with write_atomically(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
        written(path, _write(directory / "tables" / f"{name}.md", _table_markdown(table)))
    written(_write(directory / "summary.txt", findings.text()))
    written(_write(directory / "summary.md", _summary(findings, list(figures))))
    pictures = {name: (directory / "figures" / f"{name}.svg").read_bytes() for name in figures}
    index = _write(directory / "index.html", page(findings, pictures))
    if progress is not None:
        progress("index.html")
    paths.insert(0, index)
    _remove_former(directory, paths)
    return paths


def _in_order(figures: dict[str, Figure]) -> dict[str, Figure]:
    order = list(FIGURES)
    return dict(sorted(figures.items(), key=lambda item: order.index(_kind(item[0]))))


def _kind(name: str) -> str:
    return name.partition("-")[0]


def _write(path: Path, text: str) -> Path:
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _remove_former(directory: Path, paths: Sequence[Path]) -> None:
    """Remove what the last report wrote and this one did not: it would be taken for a result."""
    names = {path.relative_to(directory).as_posix() for path in paths}
    manifest = directory / _MANIFEST
    try:
        former = json.loads(manifest.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        former = []
    for name in former:
        kind, _, file = name.rpartition("/")
        if name not in names and kind in ("figures", "tables") and file not in ("", "..", "."):
            (directory / name).unlink(missing_ok=True)
    _write(manifest, json.dumps(sorted(names)))


def _table_markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown; what is the same in all its rows stands above it."""
    if table.empty:
        return "Nothing to show.\n"
    constant = [name for name in table.columns if len(table) > 1 and table[name].nunique(dropna=False) == 1]
    rest = [name for name in table.columns if name not in constant]
    lines = [f"- {name}: {_cell(table[name].iloc[0])}" for name in constant] + ([""] if constant else [])
    lines += ["| " + " | ".join(rest) + " |", "|" + " --- |" * len(rest)]
    for row in table[rest].itertuples(index=False):
        lines.append("| " + " | ".join(map(_cell, row)) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value).replace("|", "\\|")


def _summary(findings: Findings, figures: Sequence[str]) -> str:
    lines = [findings.markdown(), "## Figures", ""]
    for name in figures:
        lines += [f"![{FIGURES[_kind(name)]}](figures/{name}.png)", ""]
    return "\n".join(lines)


def _plain(values: Any) -> Any:
    """Return an array as nested lists, with null for what JSON has no number for, and six digits."""
    if isinstance(values, np.ndarray):
        return [_plain(value) for value in values]
    return round(float(values), 6) if math.isfinite(values) else None


def _matrix_data(findings: Findings, matrix: Matrix, label: str) -> dict[str, Any]:
    low, high = matrix.interval()
    data: dict[str, Any] = {
        "label": label,
        "train": matrix.sigma_train,
        "infer": matrix.levels,
        "mean": _plain(matrix.mean),
        "low": _plain(low),
        "high": _plain(high),
        "seeds": matrix.n_seeds.tolist(),
        "chance": matrix.chance,
        "snr": [
            "∞" if math.isinf(snr) else None if math.isnan(snr) else f"{snr:.1f}" for snr in matrix.snr_db
        ],
        "unit": SCALE_UNITS.get(matrix.key["scale"], ""),
        "trainUnit": SCALE_UNITS.get(matrix.key["train_scale"], ""),
    }
    for name, to_clean in (("same", False), ("clean", True)):
        found = findings.differences(matrix, to_clean)
        if found is not None:
            data[name] = {
                "effect": _plain(found.effect),
                "low": _plain(found.low),
                "high": _plain(found.high),
                "marked": found.significant.tolist(),
            }
    return data


def page(findings: Findings, pictures: dict[str, bytes]) -> str:
    """Return a report as one HTML page that needs nothing else.

    Args:
        findings: see :func:`asr_dni.study.findings.find`.
        pictures: SVG files by their names, see :func:`asr_dni.study.figures.draw_study`.
    """
    from plotly.offline import get_plotlyjs  # takes longer to import than the rest of this module

    parts = [f"<p class=lead>{_text(findings.setting)}</p>", "<h2>Findings</h2>"]
    for question, answers in findings.answered():
        rows = "".join(
            f"<tr><th>{_text(answer.about)}</th><td>"
            + (
                f"<span class='verdict {_COLORS[answer.verdict]}'>{answer.verdict}</span> "
                if answer.verdict != "estimate"
                else ""
            )
            + f"{_text(answer.sentence)}</td></tr>"
            for answer in answers
        )
        tests = "".join(f"<p class=test>Test: {_text(test)}</p>" for test in tests_of(answers))
        count = "".join(
            f"<span class='verdict {_COLORS[verdict]}'>{sum(a.verdict == verdict for a in answers)} {verdict}</span> "
            for verdict in _COLORS
            if verdict != "estimate" and any(a.verdict == verdict for a in answers)
        )
        parts.append(
            f"<details open><summary>{_text(question.title)} {count}</summary><table>{rows}</table>{tests}</details>"
        )
    notes = "".join(f"<li>{_text(note)}</li>" for note in findings.notes)
    parts.append(f"<h2>What limits these answers</h2><ul>{notes}</ul>")
    parts.append(_EXPLORER)
    parts.append("<h2>Figures</h2>")
    for kind, title in FIGURES.items():
        own = [name for name in pictures if _kind(name) == kind]
        images = "".join(
            f"<img alt='{_text(title)}: {_text(name)}' src='data:image/svg+xml;base64,"
            f"{base64.b64encode(pictures[name]).decode()}'>"
            for name in own
        )
        if own:
            parts.append(f"<details open><summary>{_text(title)}</summary>{images}</details>")
    data = [
        _matrix_data(findings, matrix, label)
        for matrix, label in zip(findings.matrices, findings.labels, strict=True)
    ]
    varying = [name for name in KEYS if name in ("cell", "units") or name in varying_keys(findings.matrices)]
    names = json.dumps(
        {
            "matrices": data,
            "keys": [[str(m.key[name]) for name in varying] for m in findings.matrices],
            "names": varying,
            "noInterval": TOO_FEW_SEEDS,
        }
    ).replace("<", "\\u003c")
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>Findings of a study of noise</title><style>{_STYLE}</style></head><body>"
        f"<h1>Accuracy under computation noise</h1>{''.join(parts)}"
        f"<script>{get_plotlyjs()}</script><script>const STUDY = {names};{_SCRIPT}</script></body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text, quote=True)


_STYLE = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #222; max-width: 1240px; margin: 2em auto;
  padding: 0 1.2em; }
h1 { font-size: 1.7em; margin-bottom: .2em; } h2 { font-size: 1.25em; margin: 1.8em 0 .6em; }
.lead, .test { color: #666; } .test { font-size: .85em; margin: .5em 0; }
details { border: 1px solid #ddd; border-radius: 6px; margin: .7em 0; padding: .5em .9em; overflow-x: auto; }
summary { font-weight: 600; cursor: pointer; }
table { border-collapse: collapse; margin: .5em 0; width: 100%; }
th { text-align: left; vertical-align: top; font-weight: 600; padding: .35em 1em .35em 0; min-width: 10em; }
td { padding: .35em 0; vertical-align: top; } tr + tr { border-top: 1px solid #eee; }
.verdict { display: inline-block; border-radius: 4px; padding: 0 .5em; font-size: .82em; font-weight: 600;
  white-space: nowrap; }
.yes { background: #d5ecdf; color: #0a5a32; } .no { background: #f6d9d3; color: #8a2411; }
.open { background: #ebebeb; color: #444; }
img { display: block; width: 100%; margin: .8em 0; }
label { margin-right: 1.2em; } select { font: inherit; padding: .15em .3em; }
#heat, #curves { width: 100%; } #heat { height: 480px; } #curves { height: 460px; }
"""

_EXPLORER = """<h2>Explore</h2>
<noscript><p>The figures below show the same without JavaScript.</p></noscript>
<div id=choices></div><div id=heat></div><div id=curves></div>"""

_SCRIPT = r"""
const choices = document.getElementById("choices"), chosen = {};
function addSelect(name, title, options) {
  const label = document.createElement("label"), select = document.createElement("select");
  label.append(title + " ", select);
  for (const [value, text] of options) select.add(new Option(text, value));
  select.onchange = () => { chosen[name] = select.value; draw(name); };
  chosen[name] = select.value;
  choices.append(label);
  return select;
}
const selects = STUDY.names.map((name, place) => {
  const values = [...new Set(STUDY.keys.map(key => key[place]))];
  return addSelect(name, name.replace("_", " "), values.map(value => [value, value || "–"]));
});
addSelect("show", "show", [["mean", "accuracy (%)"], ["same", "difference to conventional at the same noise (points)"],
  ["clean", "difference to conventional with clean inference (points)"]]);
function current(changed) {
  const wanted = STUDY.names.map(name => chosen[name]);
  const score = key => key.reduce((sum, value, place) =>
    sum + (value === wanted[place] ? (STUDY.names[place] === changed ? 100 : 1) : 0), 0);
  let best = 0;
  STUDY.keys.forEach((key, place) => { if (score(key) > score(STUDY.keys[best])) best = place; });
  STUDY.keys[best].forEach((value, place) => { selects[place].value = value; chosen[STUDY.names[place]] = value; });
  return STUDY.matrices[best];
}
const fixed = (value, digits = 1) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));
const signed = value => (value === null ? "–" : (value >= 0 ? "+" : "") + fixed(value));
const percent = rows => rows.map(row => row.map(value => (value === null ? null : 100 * value)));
const layout = {font: {family: "system-ui, DejaVu Sans, sans-serif", size: 13}, plot_bgcolor: "white",
  margin: {l: 80, r: 30, t: 50, b: 75}};
function draw(changed) {
  const m = current(changed), infer = m.infer.map(String);
  const show = chosen.show !== "mean" && !m[chosen.show] ? "mean" : chosen.show;
  const part = show === "mean" ? {effect: m.mean, low: m.low, high: m.high} : m[show];
  const train = (show === "mean" ? m.train : m.train.slice(1)).map(String);
  const z = percent(part.effect), low = percent(part.low), high = percent(part.high);
  const number = show === "mean" ? fixed : signed;
  const text = z.map((row, i) => row.map((value, j) => value === null ? "" :
    part.marked && part.marked[i][j] ? `<b>${number(value)}*</b>` : number(value)));
  const seeds = show === "mean" ? m.seeds : m.seeds.slice(1);
  const hover = z.map((row, i) => row.map((value, j) =>
    `σ_train ${train[i]}, σ_infer ${infer[j]}` + (m.snr[j] === null ? "" : ` (SNR ${m.snr[j]} dB)`) +
    `<br>${number(value)}` + (low[i][j] === null ? ", " + STUDY.noInterval :
      ` [${number(low[i][j])}, ${number(high[i][j])}]`) +
    `<br>${seeds[i][j]} seed${seeds[i][j] === 1 ? "" : "s"}`));
  const limit = Math.max(1, show === "clean" ? 10 : Math.max(...z.flat().map(value => Math.abs(value || 0))));
  const titles = {mean: "accuracy (%)", same: "points against conventional training at the same noise",
    clean: "points against conventional training with clean inference"};
  Plotly.react("heat", [{type: "heatmap", x: infer, y: train, z, text, texttemplate: "%{text}", customdata: hover,
    hovertemplate: "%{customdata}<extra></extra>", xgap: 2, ygap: 2, hoverongaps: false,
    colorscale: show === "mean" ? "Viridis" : [[0, "#67001f"], [0.25, "#d6604d"], [0.5, "#f7f7f7"], [0.75, "#4393c3"],
      [1, "#053061"]],
    zmin: show === "mean" ? 100 * m.chance : -limit, zmax: show === "mean" ? 100 : limit}],
    {...layout, title: {text: `${m.label}: ${titles[show]}`, font: {size: 15}, x: 0, xref: "paper", xanchor: "left"},
     xaxis: {type: "category", title: {text: "inference noise σ_infer" + (m.unit ? ` (${m.unit})` : "")}},
     yaxis: {type: "category", title: {text: "training noise σ_train"}}}, {responsive: true, displaylogo: false});
  const stops = [[13, 8, 135], [106, 0, 168], [177, 42, 144], [225, 100, 98], [252, 166, 54]], lines = [];
  const noisy = m.train.filter(sigma => sigma > 0);
  function colorOf(sigma) {
    if (sigma === 0) return [0, 0, 0];
    const at = 4 * noisy.indexOf(sigma) / Math.max(1, noisy.length - 1), low = Math.min(3, Math.floor(at));
    return stops[low].map((value, part) => Math.round(value + (at - low) * (stops[low + 1][part] - value)));
  }
  m.train.forEach((sigma, i) => {
    const rgb = colorOf(sigma).join(","), name = `σ_train ${sigma}` + (sigma === 0 ? " (conventional)" : "");
    const places = m.infer.map((_, j) => j).filter(j => m.low[i][j] !== null);
    lines.push({x: places.map(j => m.infer[j]).concat(places.slice().reverse().map(j => m.infer[j])),
      y: places.map(j => 100 * m.high[i][j]).concat(places.slice().reverse().map(j => 100 * m.low[i][j])),
      fill: "toself", fillcolor: `rgba(${rgb},.15)`, line: {width: 0}, mode: "lines", hoverinfo: "skip",
      showlegend: false, legendgroup: name});
    lines.push({x: m.infer, y: m.mean[i].map(value => value === null ? null : 100 * value), name, legendgroup: name,
      mode: "lines+markers", line: {color: `rgb(${rgb})`, dash: sigma === 0 ? "dash" : "solid"},
      text: m.infer.map((_, j) => m.low[i][j] === null ? "" :
        ` [${fixed(100 * m.low[i][j])}, ${fixed(100 * m.high[i][j])}]`), hovertemplate: "%{y:.1f}%{text}"});
  });
  Plotly.react("curves", lines, {...layout, hovermode: "x unified",
    title: {text: `${m.label}: noise curves, ` + (m.low.flat().some(value => value !== null) ?
      "bands are 95 % intervals over seeds" : STUDY.noInterval), font: {size: 15}, x: 0,
      xref: "paper", xanchor: "left"},
    xaxis: {title: {text: "inference noise σ_infer" + (m.unit ? ` (${m.unit})` : "")}, gridcolor: "#eee",
      zeroline: false},
    yaxis: {title: {text: "accuracy (%)"}, range: [0, 101.5], gridcolor: "#ddd"},
    shapes: [{type: "line", xref: "paper", x0: 0, x1: 1, y0: 100 * m.chance, y1: 100 * m.chance,
      line: {color: "#6b6b6b", dash: "dot", width: 1}}],
    annotations: [{xref: "paper", x: 0, xanchor: "left", y: 100 * m.chance, yanchor: "top", showarrow: false,
      text: `chance ${fixed(100 * m.chance)} %`, font: {color: "#6b6b6b", size: 11}}]},
    {responsive: true, displaylogo: false});
}
draw("");
"""
