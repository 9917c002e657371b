"""Serving the dashboard, on this machine by default."""

import errno
import logging
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from dash import Dash
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from asr_dni.catalogue import Catalogue
from asr_dni.dashboard.access import TOKEN, Guard, addresses_for_others, is_local, make_token
from asr_dni.dashboard.app import make_app
from asr_dni.errors import UserError
from asr_dni.terminal import make_console

_PORTS_TRIED = 20
_LOG = logging.getLogger(__name__)


class _Handler(WSGIRequestHandler):
    """Says nothing of requests, and keeps connections open."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Tell errors through Python's logging."""
        _LOG.log(logging.ERROR if type == "error" else logging.DEBUG, message, *args)

    def version_string(self) -> str:
        """Return no version of anything."""
        return "asr-dni"


class Server:
    """A dashboard that is bound to an address, not yet serving.

    Requests are answered by a thread each. It is werkzeug's server, without its debugger, reloader and log: it is made
    for few clients, which a dashboard has; in front of many belongs another server, given :attr:`application`.

    Args:
        folder: of runs and studies.
        host: an address other than this machine's own needs a token, which is made here.
        port: where it is taken, one of the next is used; 0: any that is free.

    Attributes:
        application: the WSGI application.
        port: that it is bound to.
        token: ``None`` where none is needed.

    Raises:
        UserError: the folder does not exist, or the address cannot be bound to.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 8050) -> None:
        if not 0 <= port < 65536:
            raise UserError(f"port is {port}: give a number from 0 to 65535")
        self.folder = folder
        self.host = host
        self.token = None if is_local(host) else make_token()
        self.app = make_app(Catalogue(folder))
        self.application = Guard(self.app.server, host, self.token, _policy_of(self.app))
        self._server = self._bind(port)
        self.port = self._server.port

    def _bind(self, port: int) -> BaseWSGIServer:
        ports = [port] if port == 0 else range(port, min(port + _PORTS_TRIED, 65536))
        for one in ports:
            # Bound here: werkzeug ends the process where a port is taken.
            bound = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM)
            try:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.bind((self.host, one))
                bound.listen(128)
            except OSError as error:
                bound.close()
                if error.errno in (errno.EADDRINUSE, errno.EACCES) and one != ports[-1]:
                    continue
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    raise UserError(f"ports {port} to {ports[-1]} are taken: give another --port") from None
                raise UserError(
                    f"host {self.host}: {error.strerror or error}; give an address of this machine"
                ) from None
            with bound:
                return make_server(
                    self.host,
                    bound.getsockname()[1],
                    self.application,
                    threaded=True,
                    request_handler=_Handler,
                    fd=bound.detach(),
                )
        raise AssertionError("unreachable")

    @property
    def url(self) -> str:
        """The link that opens it, with the token where there is one."""
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """The links that open it, the surest first: of a server of all addresses by address and by name."""
        token = f"?{TOKEN}={self.token}" if self.token else ""
        names = [f"[{name}]" if ":" in name else name for name in addresses_for_others(self.host)]
        return [f"http://{name}:{self.port}/{token}" for name in names]

    def serve(self) -> None:
        """Answer requests until :meth:`stop` is called."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """Let :meth:`serve` return, and free the port."""
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve in the background while the block lasts; yield the link."""
        thread = threading.Thread(target=self.serve, name="dashboard", daemon=True)
        thread.start()
        try:
            yield self.url
        finally:
            self.stop()
            thread.join()


def _policy_of(app: Dash) -> Any:
    """Return what gives the Content-Security-Policy: nothing of another host, and no script but the files' own."""
    known: list[str] = []

    def policy() -> str:
        if not known:
            scripts = " ".join(app.csp_hashes())
            known.append(
                "default-src 'none'; "
                f"script-src 'self' {scripts}; "
                "style-src 'self' 'unsafe-inline'; "  # components and figures set styles of their own
                "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; connect-src 'self'; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
        return known[0]

    return policy


def serve(folder: Path, host: str = "127.0.0.1", port: int = 8050, open_browser: bool = False) -> None:
    """Serve the dashboard of a folder until Ctrl+C.

    Args:
        folder: of runs and studies.
        host: see :class:`Server`.
        port: see :class:`Server`.
        open_browser: open a browser.

    Raises:
        UserError: see :class:`Server`.
    """
    server = Server(folder, host, port)
    console = make_console()
    if port not in (0, server.port):
        console.print(f"port {port} is taken: serving at {server.port}", soft_wrap=True)
    console.print(f"results of {folder}: {' or '.join(server.urls)}", soft_wrap=True)
    if server.token:
        console.print("whoever has this link can read them: keep it to yourself", soft_wrap=True)
    console.print("Ctrl+C ends it", soft_wrap=True)
    if open_browser:
        webbrowser.open(server.url)
    # What runs a network is imported while the first page is looked at.
    threading.Thread(target=import_module, args=("asr_dni.inference",), daemon=True).start()
    try:
        server.serve()
    except KeyboardInterrupt:
        console.print("\nended")
