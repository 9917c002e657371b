"""``asr-dni noise``: the hardware and the noise models there are, with their equations, numbers and sources."""

import dataclasses
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import docstring_parser

from asr_dni.cli.help_formatter import plain
from asr_dni.cli.plain_parser import PlainParser
from asr_dni.errors import UserError
from asr_dni.files import write_atomically
from asr_dni.hardware_files import hardware_names, read_hardware
from asr_dni.named_configurations import FOLDER, describe
from asr_dni.noise import CONVERTERS, OUTPUT_MODELS, WEIGHT_MODELS, Cells, Hardware
from asr_dni.noise.model import Model

_WIDTH = 120
_MODELS: dict[str, Mapping[str, type[Model]]] = {
    "models of outputs": OUTPUT_MODELS,
    "models of weights": WEIGHT_MODELS,
    "converters": CONVERTERS,
}


def noise(arguments: Sequence[str]) -> None:
    """Run ``asr-dni noise``.

    Args:
        arguments: the command line after ``noise``.

    Raises:
        UserError: there is no such hardware or model, or it has nothing to draw.
    """
    parser = PlainParser(
        "asr-dni noise",
        description="The hardware that comes with the project (conf/hardware), and the noise models it is made of.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list or show")
    actions.add_parser("list", help="names and what they are", allow_abbrev=False)
    show = actions.add_parser(
        "show", help="equations, units, numbers and sources of one, and a figure", allow_abbrev=False
    )
    show.add_argument("name", help="of hardware, of a model, or a YAML file with hardware")
    show.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="draw the deviation of a memory device over its conductance, and its drift over time: a png, svg, pdf or"
        " html file",
    )
    options = parser.parse_args(list(arguments))
    if options.action == "list":
        _list()
    else:
        _show(options.name, options.figure)


def _list() -> None:
    groups = {"hardware (conf/hardware)": {name: describe(f"hardware/{name}") for name in hardware_names()}}
    groups |= {
        what: {name: _documentation(kind)[0] for name, kind in models.items()}
        for what, models in _MODELS.items()
    }
    width = max(len(name) for group in groups.values() for name in group) + 2
    for what, group in groups.items():
        print(f"{what}:")
        for name, summary in group.items():
            print(f"  {name:{width}}{textwrap.shorten(summary, _WIDTH - width - 2, placeholder=' ...')}")


def _show(name: str, figure: Path | None) -> None:
    kind = next((models[name] for models in _MODELS.values() if name in models), None)
    if kind is not None:
        models: list[tuple[str, Model]] = [("", kind())]
    else:
        try:
            hardware = read_hardware(name)
        except UserError as error:
            if Path(name).exists():
                raise
            raise UserError(
                f"there is no hardware and no noise model {name!r}: asr-dni noise list names them; or give a file"
            ) from error
        models = _models_of(hardware)
    cells = [model for _, model in models if isinstance(model, Cells)]
    if figure is not None:
        _draw(name, cells, figure)
    if kind is None and name in hardware_names():
        print(textwrap.fill(f"{name}: {describe(f'hardware/{name}')}", _WIDTH))
        print(f"{FOLDER / 'hardware' / f'{name}.yaml'}\n")
    print("\n\n".join(_described(place, model) for place, model in models))
    if figure is not None:
        print(f"\nfigure: {figure}")


def _models_of(hardware: Hardware) -> list[tuple[str, Model]]:
    models: list[tuple[str, Model]] = []
    for place in ("dac", "weight", "output", "adc"):  # in the order of a product
        found = getattr(hardware, place)
        several = found if isinstance(found, tuple) else () if found is None else (found,)
        models += [(place, model) for model in several]
    return models


def _described(place: str, model: Model) -> str:
    """Return what a model is and how it is set, as text."""
    summary, rest, fields = _documentation(type(model))
    rows = [
        (its.name, _value(getattr(model, its.name)), model.unit_of(its.name), fields.get(its.name, ""))
        for its in dataclasses.fields(model)
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    heading = f"{place}: {type(model).__name__}" if place else type(model).__name__
    lines = [heading, textwrap.indent(textwrap.fill(summary, _WIDTH - 2), "  ")]
    if rest:
        lines += ["", textwrap.indent(rest, "  ")]
    if rows:
        lines.append("")
    for row in rows:
        cells = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
        indent = len(cells) + 4
        what = textwrap.wrap(row[3], max(_WIDTH - indent, 30)) or [""]
        lines.append(f"  {cells}  {what[0]}".rstrip())
        lines += [" " * indent + line for line in what[1:]]
    return "\n".join(lines)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _documentation(kind: type[Model]) -> tuple[str, str, dict[str, str]]:
    """Return a class's summary, the rest of its text, and what its fields are, those of its bases too."""
    fields: dict[str, str] = {}
    for its in kind.__mro__:
        if issubclass(its, Model) and its.__doc__:
            for parameter in docstring_parser.parse(
                its.__doc__, docstring_parser.DocstringStyle.GOOGLE
            ).params:
                fields.setdefault(parameter.arg_name, plain(" ".join((parameter.description or "").split())))
    parsed = docstring_parser.parse(inspect.getdoc(kind) or "", docstring_parser.DocstringStyle.GOOGLE)
    return plain(parsed.short_description or ""), plain(parsed.long_description or ""), fields


def _draw(name: str, cells: Sequence[Cells], path: Path) -> None:
    from asr_dni.evaluation.figures.devices import device_figure
    from asr_dni.plotting.with_matplotlib import Format, save

    if not cells:
        raise UserError(f"{name} has no memory devices, of which a figure is: leave --figure out")
    kinds: dict[str, Format | Literal["html"]] = {f".{its}": its for its in (*get_args(Format), "html")}
    kind = kinds.get(path.suffix)
    if kind is None:
        raise UserError(f"--figure {path}: give a name that ends in .png, .svg, .pdf or .html")
    figure = device_figure(cells[0], name)
    if kind == "html":
        from asr_dni.plotting.page import page

        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as temporary:
            temporary.write_text(page(figure.title, [figure]), encoding="utf-8")
    else:
        save(figure, path.with_suffix(""), (kind,))
