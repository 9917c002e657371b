"""``asr-dni models``: the trained networks that come with the package."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from asr_dni.cli.functions import check_folder
from asr_dni.cli.plain_parser import PlainParser
from asr_dni.evaluation import NoiseCurve, noise_curve_table
from asr_dni.evaluation.curves.curve import curve_label
from asr_dni.files import copy_new
from asr_dni.models import PackagedModel, model_names
from asr_dni.terminal import make_console

_SHOWN_SIGMAS = (0.0, 1.0, 2.0, 3.0, 4.0)
_WIDTH = 120


def models(arguments: Sequence[str]) -> None:
    """Run ``asr-dni models``.

    Args:
        arguments: the command line after ``models``.

    Raises:
        UserError: there is no network of this name, or a copy would overwrite another file.
    """
    parser = PlainParser(
        "asr-dni models",
        description="The trained networks that come with the package. Their names do wherever a command takes a"
        " checkpoint (predict, noise-curve, evaluate, test --ckpt_path, fit --weights), and in asr_dni.load.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="list, show or copy")
    actions.add_parser("list", help="names, accuracy under noise, size", allow_abbrev=False)
    show = actions.add_parser(
        "show", help="data, protocol, training and noise curve of one", allow_abbrev=False
    )
    show.add_argument("name")
    copy = actions.add_parser(
        "copy", help="copy the files of one; nothing is overwritten", allow_abbrev=False
    )
    copy.add_argument("name")
    copy.add_argument("--to", type=Path, default=Path(), metavar="FOLDER", help="default: the current folder")
    options = parser.parse_args(list(arguments))
    if options.action == "show":
        _show(PackagedModel.named(options.name))
    elif options.action == "copy":
        _copy(PackagedModel.named(options.name), options.to)
    else:
        _list()


def _list() -> None:
    table = Table(title="accuracy in % at σ_infer, on clips of people who are not in the training", box=None)
    table.add_column("name", no_wrap=True)
    for sigma in _SHOWN_SIGMAS:
        table.add_column(f"{sigma:g}", justify="right")
    table.add_column("weights", justify="right")
    summaries = []
    for name in model_names():
        model = PackagedModel.named(name)
        means = NoiseCurve.from_csv(model.curve).summary().frame.set_index("strength")["accuracy"]
        accuracies = (f"{100 * means[sigma]:.1f}" if sigma in means else "" for sigma in _SHOWN_SIGMAS)
        table.add_row(name, *accuracies, f"{model.parameters:,}")
        summaries.append(f"{name}: {model.summary}. {model.recommended_for}")
    make_console().print(table)
    for summary in summaries:
        print(textwrap.fill(summary, _WIDTH, subsequent_indent="  "))


def _show(model: PackagedModel) -> None:
    curve = NoiseCurve.from_csv(model.curve)
    facts = {
        "what it is": model.summary,
        "to be taken": model.recommended_for,
        "words": ", ".join(model.labels),
        "parameters": f"{model.parameters:,}",
        "data": model.data,
        "protocol": model.protocol,
        "training": model.training,
        "file": f"{model.checkpoint} ({model.checkpoint.stat().st_size / 1e6:.2f} MB)",
    }
    width = max(map(len, facts)) + 2
    print(model.name)
    for what, text in facts.items():
        print(
            textwrap.fill(
                text, _WIDTH, initial_indent=f"  {what:{width}}", subsequent_indent=" " * (width + 2)
            )
        )
    make_console().print(noise_curve_table({curve_label(curve.settings): curve}))


def _copy(model: PackagedModel, to: Path) -> None:
    targets = {
        path: to / path.name for path in (model.checkpoint, model.curve, model.curve.with_suffix(".yaml"))
    }
    check_folder(to)
    copy_new(targets)
    print("copied: " + ", ".join(map(str, targets.values())))
