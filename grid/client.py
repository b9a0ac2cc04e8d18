"""A small client of central's API. Answers are data to be decoded, bounded in size, and never believed as such.

Central carries orders and cannot sign them; what it says about a site is a claim until a signed record line proves it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx

from grid.claims import text_of
from grid.errors import CentralRefused, CentralUnreachable, GridError
from wire.notes import MAX_NOTE
from wire.orders import MAX_ORDER_BYTES

MAX_ANSWER_BYTES = 4_194_304
CHECKPOINT_S = 1.0
"""An order does not wait longer than this for a checkpoint to carry."""


def check_url(url: str) -> str:
    """Central's base URL without a trailing slash.

    Raises:
        GridError: not http(s), or it carries a user or a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise GridError(f"central {url[:200]!r}: not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise GridError(f"central {url[:200]!r}: expected http(s)://host[:port]")
    if parts.username or parts.password:
        raise GridError("central: a URL must carry no user and no password; they would end in logs")
    return url.rstrip("/")


class CentralClient:
    """Requests to one central. Use as a context manager; every answer is parsed JSON."""

    def __init__(self, url: str, *, timeout_s: float = 5.0, transport: httpx.BaseTransport | None = None) -> None:
        self.url = check_url(url)
        # No proxies and no credentials from the environment: the dispatcher's path to central is the one configured.
        self._http = httpx.Client(timeout=timeout_s, follow_redirects=False, trust_env=False, transport=transport)

    def __enter__(self) -> CentralClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def sites(self) -> list[dict[str, Any]]:
        """All sites as central sees them."""
        return _rows(self._call("GET", "/api/v1/sites"), "sites")

    def site(self, site: str) -> dict[str, Any]:
        """One site: presence, mode, epoch, live, ages, latest order."""
        return _object(self._call("GET", f"/api/v1/sites/{quote(site, safe='')}"))

    def checkpoint(self, site: str, epoch: str, size: int | None = None) -> str | None:
        """The newest cosigned checkpoint of a site's log that central shows, as a note's text; of a size, if asked."""
        of_size = "" if size is None else f"&size={size}"
        path = f"/api/v1/sites/{quote(site, safe='')}/checkpoint?epoch={quote(epoch, safe='')}{of_size}"
        note = _object(self._call("GET", path, timeout_s=CHECKPOINT_S)).get("note")
        return note if isinstance(note, str) and len(note) <= MAX_NOTE else None

    def proposals(self) -> list[dict[str, Any]]:
        """What an operator or central proposes: unsigned."""
        return _rows(self._call("GET", "/api/v1/proposals"), "proposals")

    def shares(self, zones: tuple[str, ...], **wanted: Any) -> dict[str, Any]:
        """Central's proposal of shares of a target over zones; ``wanted`` as its parameters, lists are repeated."""
        pairs = [("zone", zone) for zone in zones]
        for name, value in wanted.items():
            values = value if isinstance(value, list | tuple) else [value]
            pairs += [(name, str(one)) for one in values if one is not None]
        return _object(self._call("GET", f"/api/v1/zones/proposal?{urlencode(pairs)}"))

    def post_order(self, envelope: bytes) -> dict[str, Any]:
        """Hand over a signed order.

        Raises:
            CentralRefused: central will not take it (409 same id with other bytes, 404 unknown site, 422 bad).
            CentralUnreachable: no answer; the order may or may not have arrived. The same bytes may be sent again.
        """
        if len(envelope) > MAX_ORDER_BYTES:
            raise GridError(f"order of {len(envelope)} bytes, at most {MAX_ORDER_BYTES}")
        return _object(self._call("POST", "/api/v1/orders", envelope))

    def post_spoken(self, order_id: str, note: bytes) -> dict[str, Any]:
        """Hand over a signed note that an order was spoken.

        Raises:
            CentralRefused: central will not take it (404 unknown order, 409 no register, 422 bad).
            CentralUnreachable: no answer; the same bytes may be sent again.
        """
        return _object(self._call("POST", f"/api/v1/orders/{quote(order_id, safe='')}/spoken", note))

    def orders(self, site: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Latest orders."""
        where = f"site={quote(site, safe='')}&" if site else ""
        return _rows(self._call("GET", f"/api/v1/orders?{where}limit={limit}"), "orders")

    def order(self, order_id: str) -> dict[str, Any]:
        """One order with its progress and the signed answers as text lines."""
        return _object(self._call("GET", f"/api/v1/orders/{quote(order_id, safe='')}"))

    def _call(self, method: str, path: str, body: bytes | None = None, timeout_s: float | None = None) -> Any:
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        with self._stream(method, path, body, headers, timeout_s) as answer:
            data = bytearray()
            for chunk in answer.iter_bytes(65_536):
                data += chunk
                if len(data) > MAX_ANSWER_BYTES:
                    raise GridError(f"central {path}: answer of more than {MAX_ANSWER_BYTES} bytes")
        try:
            doc = json.loads(bytes(data)) if data else None
        except (ValueError, RecursionError):
            doc = None
            if answer.status_code < 400:
                raise GridError(f"central {path}: the answer is not JSON; is {self.url} really central?") from None
        if answer.status_code >= 300:
            raise CentralRefused(answer.status_code, f"central {path}: {answer.status_code} {_problem(doc)}".rstrip())
        return doc

    @contextmanager
    def _stream(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float | None
    ) -> Iterator[httpx.Response]:
        limit = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        try:
            with self._http.stream(method, self.url + path, content=body, headers=headers, timeout=limit) as answer:
                yield answer
        except httpx.HTTPError as error:
            raise CentralUnreachable(
                f"central {self.url} does not answer ({type(error).__name__}): check the address and the network; "
                "if it is urgent, call the site"
            ) from None


def _problem(doc: Any) -> str:
    if not isinstance(doc, dict):
        return ""
    parts = [said for name in ("code", "title", "detail") if (said := text_of(doc.get(name), 300))]
    return ": ".join(dict.fromkeys(parts))


def _object(doc: Any) -> dict[str, Any]:
    if not isinstance(doc, dict):
        raise GridError(f"central answered a JSON {type(doc).__name__}, expected an object")
    return doc


def _rows(doc: Any, name: str) -> list[dict[str, Any]]:
    rows = doc.get(name, doc.get("items")) if isinstance(doc, dict) else doc
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise GridError(f"central's list of {name} is not a list of objects")
    return rows[:10_000]
