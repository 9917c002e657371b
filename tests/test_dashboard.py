"""The dashboard without a browser: who is let in, links, and what the command says."""

import socket
import threading
import urllib.request

import pytest
from werkzeug.test import Client

from asr_dni.cli.main import main
from asr_dni.dashboard.access import Guard, is_local, make_token
from asr_dni.dashboard.links import State, without_theme


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"results"]


def guarded(host="127.0.0.1", token=None):
    return Client(Guard(application, host, token))


HERE = "http://127.0.0.1:8050"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2", "LOCALHOST"])
def test_addresses_of_this_machine_need_no_token(host):
    assert is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", "127.0.0.1.example.org", ""])
def test_any_other_address_needs_a_token(host):
    assert not is_local(host)


@pytest.mark.parametrize("name", ["127.0.0.1:8050", "localhost:8050", "[::1]:8050", "LocalHost:8050"])
def test_the_server_answers_to_its_own_names(name):
    assert guarded().get("/", base_url=HERE, headers={"Host": name}).data == b"results"


@pytest.mark.parametrize(
    "name",
    ["evil.example:8050", "127.0.0.1.evil.example", "localhost.evil.example:8050", "", "[::1", "192.168.1.4"],
)
def test_a_name_that_points_here_is_not_answered_to(name):
    answer = guarded().get("/", base_url=HERE, headers={"Host": name})
    assert answer.status_code == 421
    assert b"results" not in answer.data


def test_a_server_of_all_addresses_answers_to_addresses_and_not_to_foreign_names():
    token = make_token()
    client = guarded("0.0.0.0", token)
    client.set_cookie("asr-dni-8050", token, domain="192.168.1.4")
    assert client.get("/", base_url="http://192.168.1.4:8050").data == b"results"
    assert client.get("/", base_url="http://evil.example:8050").status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_a_page_of_another_site_makes_no_request(headers):
    answer = guarded().post("/_dash-update-component", base_url=HERE, headers=headers)
    assert answer.status_code == 403
    assert b"results" not in answer.data
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_own_pages_make_requests_and_links_elsewhere_open_them():
    client = guarded()
    own = {"Origin": HERE, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert client.post("/", base_url=HERE, headers=own).data == b"results"
    clicked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", base_url=HERE, headers=clicked).data == b"results"


def test_without_the_token_nothing_is_told():
    client = guarded("192.168.1.4", make_token())
    base = "http://192.168.1.4:8050"
    for path in ("/", "/curves", "/?token=wrong", "/?token=", "/export/curves/curves.csv"):
        answer = client.get(path, base_url=base)
        assert answer.status_code == 403
        assert b"results" not in answer.data
        assert "Set-Cookie" not in answer.headers
    client.set_cookie("asr-dni-8050", "wrong", domain="192.168.1.4")
    assert client.post("/", base_url=base).status_code == 403


def test_the_token_comes_once_in_a_link_and_then_in_a_cookie():
    token = make_token()
    client = guarded("192.168.1.4", token)
    base = "http://192.168.1.4:8050"
    answer = client.get(f"/curves?axis=snr&token={token}&select=a", base_url=base)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/curves?axis=snr&select=a"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite" in cookie
    assert client.get("/curves", base_url=base).data == b"results"
    # Another dashboard of this machine, at another port, has another token and another cookie.
    assert client.get("/curves", base_url="http://192.168.1.4:8051").status_code == 403


def test_the_way_back_from_the_token_stays_on_this_server():
    token = make_token()
    answer = guarded("192.168.1.4", token).get(
        "http://192.168.1.4:8050//evil.example/", query_string={"token": token}
    )
    assert not answer.headers.get("Location", "/").startswith("//")


def test_tokens_are_long_and_differ():
    tokens = {make_token() for _ in range(20)}
    assert len(tokens) == 20
    assert min(map(len, tokens)) >= 43  # 256 bits, six to a character


def test_answers_allow_nothing_of_other_hosts():
    headers = guarded().get("/", base_url=HERE).headers
    assert "'self'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "state",
    [
        State(),
        State(
            "curves",
            {"select": ("lstm/seed_1", "a b&c=d", "ü/σ"), "filter": ('{"clean":{"type":"lessThan"}}',)},
        ),
        State("matrix", {"cell": ("0,1.5,2",), "study": (".",)}),
        State("curves", {"q": ("100 %? #1 + 2",), "empty": ("",)}),
    ],
)
def test_a_link_says_what_is_shown(state):
    assert State.parse(state.url) == state
    assert State.parse(f"http://127.0.0.1:8050{state.url}") == state


def test_what_is_as_at_first_is_not_in_a_link():
    state = State("curves", {"axis": ("snr",)})
    assert (
        state.choosing(axis=None, select=(), points=2.5, by=["a", "b"]).url == "/curves?points=2.5&by=a&by=b"
    )


def test_a_link_that_somebody_wrote_by_hand_does_no_harm():
    assert State.parse("/curves?points=many").number("points", 2.0) == 2.0
    assert State.parse("/curves?points=inf").number("points", 2.0) == 2.0
    assert State.parse("").view == "curves"
    assert without_theme(State.parse("/curves?theme=pink&axis=snr")) == (
        State("curves", {"axis": ("snr",)}),
        None,
    )


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", str(tmp_path / "nowhere")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value"), [("--port", "70000"), ("--host", "203.0.113.7"), ("--host", "no.such.host.invalid")]
)
def test_an_address_that_cannot_be_is_one_line(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", str(tmp_path), option, value])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert value in error
    assert len(error.splitlines()) == 1


def test_a_taken_port_is_told_and_the_next_one_used(tmp_path, capsys, monkeypatch):
    from asr_dni.dashboard import server

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        own = server.Server(tmp_path, port=port)
        assert own.port != port
        with own.serving() as url:
            assert urllib.request.urlopen(url, timeout=30).status == 200
        monkeypatch.setattr(server.Server, "serve", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        shown = []
        monkeypatch.setattr("webbrowser.open", shown.append)
        main(["dashboard", str(tmp_path), "--port", str(port), "--open"])
    said = capsys.readouterr().out
    assert len(shown) == 1
    assert shown[0] in said
    assert f"port {port} is taken" in said
    assert "http://127.0.0.1:" in said
    assert "token" not in said


def test_any_other_host_gets_a_token_in_its_link(tmp_path):
    from asr_dni.dashboard.server import Server

    server = Server(tmp_path, host="0.0.0.0", port=0)
    assert server.token
    assert server.url.endswith(f"?token={server.token}")
    local = f"http://127.0.0.1:{server.port}/"
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(local, timeout=30)
        assert refused.value.code == 403
    finally:
        server.stop()
        thread.join()
