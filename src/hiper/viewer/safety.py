"""What a request must bring before it is answered, and what every answer tells the browser.

- The name of the host must be one that this server goes by. A page elsewhere cannot reach it by a name of its own
  (DNS rebinding).
- Where the server listens beyond loopback, a token is needed: once in the address, then in a cookie.
- Requests that change something must come from a page of this server.
- The browser may load nothing but the files of this server, and runs no script in a page's text.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
COOKIE = "hiper-viewer"


@dataclass(frozen=True)
class Door:
    """Who may enter.

    Args:
        hosts: The names that the server goes by, without ports.
        token: The token. None: none is needed, because only this machine can reach the server.
    """

    hosts: frozenset[str]
    token: str | None = field(default=None, repr=False)

    @classmethod
    def for_host(cls, host: str | None) -> Door:
        """Make the door of a server that listens on ``host``. None: on loopback alone."""
        local = {"127.0.0.1", "localhost", "::1"}
        if host is None:
            return cls(frozenset(local))
        names = {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(frozenset(local | names), secrets.token_urlsafe(24))

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server. Where a token is needed, any address in numbers does."""
        name = _without_port(host.lower())
        return name in self.hosts or (self.token is not None and _is_address(name))

    def admits(self, given: Iterable[str | None]) -> bool:
        """Whether one of the tokens given is the right one. The time of the comparison does not tell how near it is."""
        if self.token is None:
            return True
        right = self.token.encode()
        return any(secrets.compare_digest((token or "").encode(), right) for token in given)


class Guard:
    """Middleware that keeps the rules of the module's text.

    Args:
        app: The application behind it.
        door: Who may enter.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        if refusal := self._refusal(request):
            await _with_headers(refusal, scope, receive, send)
            return
        await _with_headers(self._app, scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        if not self._door.knows(request.headers.get("host", "")):
            return PlainTextResponse("this server does not go by that name", 421)
        if self._door.token is not None:
            given = request.query_params.get("token")
            if given is not None and self._door.admits([given]):
                response = RedirectResponse(request.url.path or "/", 303)
                response.set_cookie(COOKIE, given, httponly=True, samesite="strict", path="/")
                return response
            if not self._door.admits([request.cookies.get(COOKIE)]):
                return PlainTextResponse("open the address that `hiper view` has shown, with its token", 401)
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin", "")
            if origin.partition("://")[2] != request.headers.get("host") or not _is_json(request):
                return PlainTextResponse("only a page of this server may do that", 403)
        return None


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"


async def _with_headers(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the headers of every answer."""

    async def send_on(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *extra]}  # type: ignore[misc]
        await send(message)

    sender: Callable[[dict[str, object]], Awaitable[None]] = send_on
    await app(scope, receive, sender)  # type: ignore[arg-type]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
