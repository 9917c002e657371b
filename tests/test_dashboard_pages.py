"""The dashboard's pages as what is sent to the browser, and what its server says of requests that no page makes."""

import json
import re
import socket
from urllib.parse import urlsplit

import pytest
from made_runs import write_runs
from simulated_study import simulate
from werkzeug.test import Client

from asr_dni.catalogue import Catalogue
from asr_dni.dashboard.app import make_app
from asr_dni.dashboard.figure_cards import changing_card, figure_card
from asr_dni.dashboard.links import State
from asr_dni.dashboard.server import Server
from asr_dni.dashboard.views import VIEWS
from asr_dni.plotting import Figure, Panel
from asr_dni.plotting.page import page
from asr_dni.study.ledger import Ledger

NOTHING = Figure("One", (Panel(message="nothing"),))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_runs(folder / "runs", sigmas=(0.0, 2.0), seeds=2)
    ledger = Ledger(folder / "study" / "ledger")
    frame = simulate(sigmas_train=(0.0, 1.0), sigmas_infer=(0.0, 1.0), draws=1, seeds=range(2))
    for member, rows in frame.groupby("member"):
        ledger.append(str(member), rows)
    (folder / "study" / "study.yaml").write_text("name: simulated\n", encoding="utf-8")
    return Catalogue(folder)


def test_no_figure_offers_to_upload_itself(catalogue):
    runs = catalogue.runs()["run"]
    states = [State(view.name, {"run": (runs[0],)}) for view in VIEWS]
    parts = [view.layout(state, catalogue) for view, state in zip(VIEWS, states, strict=True)]
    graphs = [
        part
        for whole in (*parts, changing_card("any"), figure_card("one", NOTHING, states[0], "light"))
        for part in whole._traverse()
        if type(part).__name__ == "Graph"
    ]
    assert len(graphs) >= 5
    configs = [graph.config for graph in graphs]
    report = page("Two", [NOTHING, NOTHING])
    written = [json.loads(text) for text in re.findall(r"\{[^{}]*\"showSendToCloud\"[^{}]*\}", report)]
    assert len(written) == report.count('class="plotly-graph-div"') == 2
    for config in configs + written:
        assert config["showSendToCloud"] is False
        assert "sendChartToCloud" in config["modeBarButtonsToRemove"]


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"nothing", b'{"output": "a.b"}', b'{"output": ["a"]}', b'{"output": "page.children"}'],
)
def test_a_request_that_no_page_makes_is_one_line(catalogue, body, caplog):
    client = make_app(catalogue).server.test_client()
    answer = client.post("/_dash-update-component", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.text.count("\n") == 1
    assert caplog.records == []


def test_a_server_of_all_addresses_tells_links_that_others_can_open(tmp_path):
    server = Server(tmp_path, host="0.0.0.0", port=0)
    links = [urlsplit(url) for url in server.urls]
    assert all(link.port == server.port and link.query for link in links)
    names = {link.hostname for link in links}
    if not socket.gethostname().startswith("localhost"):
        assert socket.gethostname().lower() in names
        assert not names & {"localhost", "127.0.0.1", "0.0.0.0"}
    with server.serving():
        pass
    for link in links:  # and it answers to these names
        assert Client(server.application).get("/", base_url=f"http://{link.netloc}").status_code == 403
