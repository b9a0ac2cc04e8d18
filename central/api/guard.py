"""In front of every request and web socket: who may talk to a loopback server through a browser.

Any web page can make a browser send requests to 127.0.0.1, and a name that resolves to 127.0.0.1 later (DNS rebinding)
makes such a page same-origin. So the Host must be one of ours, and a request that a browser marks as coming from
another origin is refused, reads included.
"""

from __future__ import annotations

import json

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def refusal(headers: Headers, method: str) -> str | None:
    """Why a request is refused; ``None`` where it is not."""
    host = headers.get("host", "")
    name, _, port = host.rpartition(":") if host.rpartition(":")[2].isdigit() else (host, "", "")
    if name not in _LOCAL or len(headers.getlist("host")) != 1:
        return f"Host {host[:80]!r}: expected 127.0.0.1 or localhost; open central by that name"
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{name}:{port}" and not (port == "" and origin == f"http://{name}"):
        return f"Origin {origin[:80]!r}: pages of another origin may not use central"
    site = headers.get("sec-fetch-site")
    if site not in {None, "same-origin", "none"}:
        navigation = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if not (navigation and method in _SAFE):
            return f"Sec-Fetch-Site {site[:40]!r}: pages of another origin may not use central"
    if method not in _SAFE and headers.get("content-type", "").partition(";")[0].strip() not in {
        "application/json",
        "application/octet-stream",
    }:
        return "Content-Type: expected application/json; forms of a web page may not use central"
    return None


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, own_paths: tuple[str, ...] = ("/_nicegui",)) -> None:
        self._app = app
        self._own_paths = own_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse or pass on, with security headers on every answer."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # The pages' own long-polling posts text; it is still bound by Host and Origin.
        method = "GET" if scope["type"] == "websocket" else scope["method"]
        judged = "GET" if scope["path"].startswith(self._own_paths) else method
        why = refusal(headers, judged)
        if why is None and method not in _SAFE and judged == "GET" and headers.get("origin") is None:
            why = "a page's own request without Origin"
        if why is not None:
            await self._refuse(scope, receive, send, why)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    out[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers)

    @staticmethod
    async def _refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4403, "reason": why[:120]})
            return
        body = json.dumps({"type": "about:blank", "title": "Refused", "status": 403, "detail": why}).encode()
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})
