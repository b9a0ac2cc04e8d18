"""What a witness that answers over HTTP knows of a log of verdicts, for commands that add to one beside central."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import httpx

from central.errors import CentralError
from central.vee.witnessing import PUT_BACK
from config.central import RemoteWitness
from wire.checkpoints import log_key, open_checkpoint
from wire.errors import WireError
from wire.keys import VerifyKey
from wire.verdicts import verdict_origin

TIMEOUT_S = 10.0
MAX_NOTE = 65_536


def known_lines(witnesses: Sequence[RemoteWitness], site: str, key: VerifyKey) -> int:
    """The largest size of the log on a site that one of them has seen signed by K_col; 0 where none has.

    Those at the broker are passed over: only central itself can ask them.

    Raises:
        CentralError: one cannot be asked, or answers something else than a checkpoint of this log.
    """
    origin = verdict_origin(site)
    digest = hashlib.sha256(origin.encode()).hexdigest()
    largest = 0
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
        for url in (w.url.rstrip("/") for w in witnesses if w.url is not None):
            try:
                status, raw = _get(client, f"{url}/{digest}/checkpoint")
                if status == httpx.codes.NOT_FOUND:
                    continue
                if status != httpx.codes.OK:
                    raise CentralError(f"witness {url} answers {status} for its newest checkpoint of {origin}")
                largest = max(largest, open_checkpoint(raw, [log_key(origin, key.raw)])[0].size)
            except (httpx.HTTPError, WireError) as error:
                why = str(error)[:200] or type(error).__name__
                raise CentralError(f"witness {url} cannot say where it knows {origin} to stand: {why}") from None
    return largest


def at_least(site: str, size: int, known: int) -> None:
    """Refuse to add to a log of which witnesses know more.

    Raises:
        CentralError: they do.
    """
    if size < known:
        raise CentralError(f"log of verdicts on {site}: {size} lines here, {known} at a witness: {PUT_BACK}")


def _get(client: httpx.Client, url: str) -> tuple[int, bytes]:
    body = b""
    with client.stream("GET", url) as response:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_NOTE:
                raise CentralError(f"{url}: an answer of more than {MAX_NOTE} bytes")
        return response.status_code, body
