"""A small HTTP/1.1 server with digest log-in, as a stock Antminer's web interface has it. One answer, then closed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from simulator.devices.connection import WebConnection, WebRequest

_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')

Handler = Callable[[str, str, bytes], Awaitable[dict[str, Any] | None]]
"""Method, path, body → the JSON object to answer, or ``None`` to close without an answer."""


def digest_is_right(header: str, method: str, *, user: str, password: str, realm: str, nonce: str) -> bool:
    """Check an ``Authorization: Digest`` header (RFC 7616, MD5, qop=auth)."""
    fields = {name: quoted or plain for name, quoted, plain in _PAIR.findall(header[:2000])}
    if not header.lower().startswith("digest ") or fields.get("nonce") != nonce or fields.get("username") != user:
        return False

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    ha1 = md5(f"{user}:{realm}:{password}")
    ha2 = md5(f"{method}:{fields.get('uri', '')}")
    wanted = md5(f"{ha1}:{nonce}:{fields.get('nc')}:{fields.get('cnonce')}:{fields.get('qop')}:{ha2}")
    return secrets.compare_digest(wanted, fields.get("response", ""))


class DigestSite:
    """Log-in and handler that all connections of one server share."""

    def __init__(self, handler: Handler, *, user: str, password: str, realm: str) -> None:
        self.handler = handler
        self.user = user
        self.password = password
        self.realm = realm
        self.nonce = secrets.token_hex(16)
        self.tasks: set[asyncio.Task[None]] = set()
        self.open_connections: set[asyncio.Transport] = set()
        self.requests = 0
        """How many requests were answered with a log-in; for tests."""

    def allows(self, method: str, header: str) -> bool:
        """True where the log-in in a header is right."""
        return digest_is_right(
            header, method, user=self.user, password=self.password, realm=self.realm, nonce=self.nonce
        )

    async def stop(self) -> None:
        """End every open request."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for transport in tuple(self.open_connections):
            transport.abort()


class HttpConnection(WebConnection):
    """One connection: one request, one answer."""

    def __init__(self, site: DigestSite, admit: Callable[[asyncio.Transport], bool]) -> None:
        super().__init__(site.open_connections, admit)
        self._site = site

    def requested(self, request: WebRequest) -> None:
        """Answer, once the log-in is right."""
        if not self._site.allows(request.method, request.headers.get("authorization", "")):
            challenge = f'Digest realm="{self._site.realm}", nonce="{self._site.nonce}", qop="auth"'
            self._send(401, b"<html><h1>401 - Unauthorized</h1></html>", challenge)
            return
        self._site.requests += 1
        task = asyncio.get_running_loop().create_task(self._handle(request))
        self._site.tasks.add(task)
        task.add_done_callback(self._site.tasks.discard)

    async def _handle(self, request: WebRequest) -> None:
        try:
            answer = await self._site.handler(request.method, request.path, request.body)
        except LookupError:
            self._send(404, b"<html><h1>404 - Not Found</h1></html>")
            return
        except RuntimeError:
            self._send(500, b"<html><h1>500 - Internal Server Error</h1></html>")
            return
        if answer is not None:
            self._send(200, json.dumps(answer).encode())
        elif self._transport is not None:
            self._transport.abort()

    def _send(self, code: int, body: bytes, challenge: str | None = None) -> None:
        if self._transport is None:
            return
        kind = "application/json" if code == 200 else "text/html"
        head = f"HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        if challenge is not None:
            head += f"WWW-Authenticate: {challenge}\r\n"
        self._transport.write(head.encode() + b"\r\n" + body)
        self._transport.close()
