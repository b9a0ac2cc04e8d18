"""Who may talk to the desk: one browser on this computer, with the cookie that the printed address gave it.

Without these checks any page open in the dispatcher's browser could drive the desk: through a name that resolves to
127.0.0.1 (Host check), through a form posted from elsewhere (Origin check, SameSite cookie), inside a frame (CSP).
"""

from __future__ import annotations

import hashlib
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "tizgin_desk"
MAX_BODY = 32_768
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
        b"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Session:
    """The one-time token of the printed address and the cookie that it buys."""

    def __init__(self) -> None:
        self._token: str | None = secrets.token_urlsafe(32)
        self._cookie: str | None = None

    @property
    def token(self) -> str:
        """The token to be printed; empty once it was used."""
        return self._token or ""

    def enter(self, token: str) -> str | None:
        """The cookie for a right token, which is used up by it; ``None`` for any other."""
        if self._token is None or not _same(token, self._token):
            return None
        self._token, self._cookie = None, secrets.token_urlsafe(32)
        return self._cookie

    def knows(self, cookie_header: str) -> bool:
        """True if the request carries the cookie."""
        try:
            morsel = SimpleCookie(cookie_header).get(COOKIE)
        except CookieError:
            return False
        return self._cookie is not None and morsel is not None and _same(morsel.value, self._cookie)


def _same(a: str, b: str) -> bool:
    return secrets.compare_digest(hashlib.sha256(a.encode()).digest(), hashlib.sha256(b.encode()).digest())


class Guard:
    """ASGI middleware in front of everything the desk serves."""

    def __init__(self, app: ASGIApp, session: Session, port: int) -> None:
        self._app, self._session = app, session
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in HEADERS}
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in own]
                message = {**message, "headers": [*kept, *HEADERS]}
            await send(message)

        if refusal is None:
            await self._app(scope, receive, guarded)
            return
        status, text = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await guarded({"type": "http.response.start", "status": status, "headers": headers})
        await guarded({"type": "http.response.body", "body": text.encode()})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        if headers.get("host", []) not in [[host] for host in self._hosts]:
            return 421, "the desk answers at 127.0.0.1 alone"
        if scope["method"] not in {"GET", "POST"}:
            return 405, "GET or POST"
        origins = headers.get("origin")
        if origins is not None and origins not in [[f"http://{host}"] for host in self._hosts]:
            return 403, "a page from elsewhere may not use the desk"
        if scope["method"] == "POST" and origins is None:
            return 403, "the browser must say where a form comes from"
        if headers.get("sec-fetch-site", ["none"]) not in [["none"], ["same-origin"]]:
            return 403, "a page from elsewhere may not use the desk"
        if scope["path"] != "/enter" and not self._session.knows("; ".join(headers.get("cookie", []))):
            return 401, "open the address that 'tizgin order desk' printed; it works once"
        return None


async def read_form(receive: Receive) -> dict[str, str]:
    """A posted form of at most 32 KB.

    Raises:
        ValueError: too large, or not a form.
    """
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise ValueError(f"the form is larger than {MAX_BODY} bytes")
        if not message.get("more_body"):
            break
    return dict(parse_qsl(body.decode("utf-8"), max_num_fields=60, keep_blank_values=False, encoding="utf-8"))
