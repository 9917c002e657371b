"""One page of what gpu.sh measured: summary.md, ready for docs/costs.md, and summary.json.

    python benchmarks/gpu_summary.py WORK OUTPUT

WORK has steps.tsv (a line a step: name, status, seconds, limit, what it is) and the tables of the steps as JSON. Needs
nothing but Python, so that there is a page whatever has failed.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

MEANING = {0: "done", 1: "FAILED", 77: "not here", 124: "out of time", 137: "out of time, killed"}
QUOTED = 5
"""Lines at the end of the log of a step that was not done."""


def steps_of(work: Path, output: Path) -> list[dict[str, Any]]:
    steps = []
    for line in (work / "steps.tsv").read_text().splitlines():
        name, status, seconds, limit, what = line.split("\t")
        step: dict[str, Any] = {"name": name, "what": what, "status": int(status), "seconds": int(seconds)}
        step |= {"limit": int(limit), "tables": [], "said": []}
        with suppress(OSError, ValueError, KeyError):  # it had none, or was ended while it wrote
            step["tables"] = json.loads((work / f"{name}.json").read_text())["tables"]
        try:
            log = (output / f"{name}.log").read_text(errors="replace").splitlines()
        except OSError:
            log = []
        if step["status"] != 0 or not step["tables"]:
            step["said"] = [text for text in log if text.strip()][-QUOTED:]
        steps.append(step)
    return steps


def machine_of(steps: Sequence[dict[str, Any]]) -> dict[str, str]:
    for step in steps:
        for table in step["tables"]:
            if table["title"] == "machine":
                return dict(table["rows"])
    return {}


def page(steps: Sequence[dict[str, Any]], dry: bool) -> str:
    machine = machine_of(steps)
    card = machine.get("card", machine.get("gpu", "no GPU"))
    lines = [f"# On a GPU: {card}", ""]
    if dry:
        lines += [
            "A dry run in Triton's interpreter: the steps are gone through, **no time means anything**.",
            "",
        ]
    lines += ["| step | | s | of at most |", "|---|---|---:|---:|"]
    for step in steps:
        meaning = MEANING.get(step["status"], f"FAILED ({step['status']})")
        lines.append(f"| {step['name']}: {step['what']} | {meaning} | {step['seconds']} | {step['limit']} |")
    lines.append("")
    shown = False
    for step in steps:
        lines += [f"## {step['name']}", ""]
        for table in step["tables"]:
            if table["title"] == "machine" and shown:
                continue
            shown |= table["title"] == "machine"
            rows = ["| " + " | ".join(row) + " |" for row in table["rows"]]
            lines += [f"**{table['title']}**", "", "| " + " | ".join(table["columns"]) + " |"]
            lines += ["|" + "---|" * len(table["columns"]), *rows, ""]
        if step["said"]:
            lines += ["```", *step["said"], "```", ""]
    return "\n".join(lines)


def main() -> None:
    work, output, *further = sys.argv[1:]
    steps = steps_of(Path(work), Path(output))
    dry = "--dry-run" in further
    summary = {"dry run": dry, "machine": machine_of(steps), "steps": steps}
    Path(output, "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    Path(output, "summary.md").write_text(page(steps, dry) + "\n")


if __name__ == "__main__":
    main()
