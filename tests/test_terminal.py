"""Names of files, folders and words are printed as they are, whatever they look like."""

import io

from rich.table import Table
from test_figures import make_curve

from asr_dni.evaluation import noise_curve_table
from asr_dni.terminal import make_console

ODD = "a [/b] [red]c :smile: [0]"


def printed(thing):
    stream = io.StringIO()
    make_console(file=stream, width=200).print(thing)
    return stream.getvalue()


def test_text_is_shown_as_it_is():
    assert printed(ODD).strip() == ODD


def test_tables_show_what_is_in_them():
    table = Table(ODD, title=ODD, caption=ODD)
    table.add_row(ODD)
    assert printed(table).count(ODD) == 4


def test_a_curve_of_a_folder_with_any_name():
    curve = make_curve(protocol=f"folder {ODD}, all words")
    assert ODD in " ".join(printed(noise_curve_table({ODD: curve})).split())
