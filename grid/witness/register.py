"""The register a witness goes by: a file that somebody brings, or central's copy; believed only under K_reg."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import structlog

from grid.errors import GridError
from wire.errors import WireError
from wire.keys import VerifyKey
from wire.registry import MAX_KEYS_BYTES, KeysDocument, open_keys

log = structlog.get_logger(__name__)

AGAIN_S = 5.0
"""How often a source is asked at most."""
TIMEOUT_S = 5.0


class RegisterSource:
    """Reads a source again when asked, and takes only rising versions.

    Args:
        source: path of ``keys.json``, or central's address.
        registrar: keys that may sign it.
        mono_s: monotonic clock, seconds.
    """

    def __init__(self, source: str, registrar: Sequence[VerifyKey], mono_s: Callable[[], float]) -> None:
        self._source = source
        self._registrar = list(registrar)
        self._mono_s = mono_s
        self._lock = threading.Lock()
        self._document: KeysDocument | None = None
        self._asked_s: float | None = None

    def __call__(self) -> KeysDocument | None:
        """The register in force."""
        with self._lock:
            now = self._mono_s()
            if self._asked_s is None or now - self._asked_s > AGAIN_S:
                self._asked_s = now
                self._read()
            return self._document

    def _read(self) -> None:
        try:
            raw = self._fetch()
            document, _ = open_keys(raw, self._registrar)
        except (GridError, WireError) as error:
            log.warning("register_not_read", source=self._source, error=str(error))
            return
        if self._document is None or document.version > self._document.version:
            self._document = document
            log.info("register_taken", version=document.version)

    def _fetch(self) -> bytes:
        if not self._source.startswith(("http://", "https://")):
            try:
                with Path(self._source).open("rb") as file:
                    return file.read(2 * MAX_KEYS_BYTES + 1)
            except OSError as error:
                raise GridError(f"{self._source}: {error.strerror or error}") from None
        try:
            with httpx.stream("GET", f"{self._source.rstrip('/')}/api/v1/keys", timeout=TIMEOUT_S) as answer:
                body = b""
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > 2 * MAX_KEYS_BYTES:
                        raise GridError(f"{self._source}: a register larger than {2 * MAX_KEYS_BYTES} bytes")
        except httpx.HTTPError as error:
            raise GridError(f"{self._source}: {error}") from None
        if answer.status_code != httpx.codes.OK:
            raise GridError(f"{self._source}: HTTP {answer.status_code}")
        return body
