"""Who may read the dashboard: this machine's browser, or whoever has the token; no page of another site."""

import hmac
import html
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

TOKEN = "token"
"""The name of a link's parameter that holds the token."""


def make_token() -> str:
    """Return a token that nobody guesses: 256 bits."""
    return secrets.token_urlsafe(32)


def is_local(host: str) -> bool:
    """Return whether only this machine can reach an address: ``localhost``, ``127.0.0.0/8``, ``::1``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str) -> frozenset[str]:
    """Return the names by which browsers may ask for a server that is bound to an address.

    A page of another site whose name its owner lets point here asks by that name, and is refused.
    """
    names = {"localhost", "127.0.0.1", "::1", host.lower()}
    if not is_local(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def is_any_address(host: str) -> bool:
    """Return whether a host stands for all addresses of this machine: ``0.0.0.0``, ``::``."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def addresses_for_others(host: str) -> list[str]:
    """Return by what other machines may reach a server that is bound to an address, the surest first.

    Of a server of all addresses these are this machine's address and its name, which not every network knows.
    """
    if not is_any_address(host):
        return [host]
    found = []
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((elsewhere, 9))  # sends nothing: the system says by which address it would
            found.append(str(probe.getsockname()[0]))
        except OSError:  # there is no network
            pass
    found += [name.lower() for name in (socket.getfqdn(), socket.gethostname())]
    names = [name for name in dict.fromkeys(found) if not name.startswith("localhost") and not is_local(name)]
    return names or ["localhost"]


@dataclass(frozen=True)
class Guard:
    """A WSGI application that lets requests through to another one, or refuses them.

    Refused are requests by another name than the server's (status 421), those that a page of another site makes (403),
    and those without the token where there is one (403). The token comes once in a link; from then on a cookie has it,
    and it is in no address that a browser keeps or sends on.

    Attributes:
        application: what answers the others.
        host: the address that the server is bound to.
        token: ``None``: there is none.
        policy: returns the Content-Security-Policy of answers.
    """

    application: "WSGIApplication"
    host: str
    token: str | None = None
    policy: Callable[[], str] = lambda: "default-src 'self'"

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        refused = self._refuse(environ)
        if refused is not None:
            return self._answer(start_response, *refused)
        if self.token is not None:
            given = dict(parse_qsl(environ.get("QUERY_STRING", ""))).get(TOKEN)
            if given is not None and self._is_token(given) and environ["REQUEST_METHOD"] == "GET":
                return self._redirect(environ, start_response)
            if not self._is_token(self._kept(environ)):
                text = "Open the link that asr-dni dashboard printed, which has the token that lets you in."
                return self._answer(start_response, "403 Forbidden", text)

        def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            return start_response(status, [*headers, *self._headers()], error)

        return self.application(environ, start)

    def _refuse(self, environ: "WSGIEnvironment") -> tuple[str, str] | None:
        """Return status and text for a request that no page of the dashboard makes."""
        asked = environ.get("HTTP_HOST", "")
        name = _host_of(asked)
        if name is None or not (
            name in names_of(self.host) or (is_any_address(self.host) and _is_address(name))
        ):
            return "421 Misdirected Request", f"This server does not go by the name {asked!r}."
        origin = environ.get("HTTP_ORIGIN")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != asked.lower()
        # Browsers say from where a request comes; a link that was clicked elsewhere is welcome, a script's is not.
        elsewhere = environ.get("HTTP_SEC_FETCH_SITE") in ("cross-site", "same-site")
        if foreign or (elsewhere and environ.get("HTTP_SEC_FETCH_MODE") != "navigate"):
            return "403 Forbidden", "This request came from a page of another site."
        return None

    def _is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _cookie(self, environ: "WSGIEnvironment") -> str:
        # Cookies are shared by all ports of a machine: each has a name of its own.
        return f"asr-dni-{environ.get('SERVER_PORT', '')}"

    def _kept(self, environ: "WSGIEnvironment") -> str:
        try:
            morsel = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(self._cookie(environ))
        except CookieError:
            return ""
        return morsel.value if morsel is not None else ""

    def _redirect(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        """Keep the token in a cookie, and go to the link without it."""
        pairs = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        query = urlencode([(name, value) for name, value in pairs if name != TOKEN])
        # One slash: two would be the address of another host.
        path = "/" + quote(environ.get("PATH_INFO", "").encode("latin-1").lstrip(b"/"))
        cookie = f"{self._cookie(environ)}={self.token}; Path=/; HttpOnly; SameSite=Lax"
        headers = [("Location", f"{path}{'?' if query else ''}{query}"), ("Set-Cookie", cookie)]
        start_response("303 See Other", [*headers, ("Content-Length", "0"), *self._headers()])
        return [b""]

    def _answer(self, start_response: "StartResponse", status: str, text: str) -> list[bytes]:
        page = f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>asr-dni</title><p>{html.escape(text)}</p>"
        body = page.encode()
        headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response(status, [*headers, *self._headers()])
        return [body]

    def _headers(self) -> list[tuple[str, str]]:
        return [
            ("Content-Security-Policy", self.policy()),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ]


def _host_of(asked: str) -> str | None:
    """Return the name in a ``Host`` header, without the port and brackets; ``None`` where it is malformed."""
    try:
        return urlsplit(f"//{asked}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
