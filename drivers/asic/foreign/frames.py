"""What parent and child say to each other: JSON objects, each after its length in four bytes, most significant first.

Parent → child: ``{"id", "host", "deadline_s"}``. Child → parent: first ``{"hello": 1, "version"}`` or ``{"missing"}``,
then ``{"id", "status"}`` or ``{"id", "error", "kind"}``. Standard library only.
"""

from __future__ import annotations

import json
from typing import Any

MAX_FRAME = 262_144
"""One status with 4 boards, 8 pools and all errors has some 5 kB."""
HEAD = 4


class BadFrame(ValueError):
    """What came is no frame of this protocol."""


def pack(message: dict[str, Any]) -> bytes:
    """One frame.

    Raises:
        BadFrame: larger than :data:`MAX_FRAME`, or not JSON.
    """
    try:
        body = json.dumps(message, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BadFrame(f"message cannot be sent: {error}") from None
    if len(body) > MAX_FRAME:
        raise BadFrame(f"message of {len(body)} bytes, at most {MAX_FRAME} expected")
    return len(body).to_bytes(HEAD, "big") + body


def length(head: bytes) -> int:
    """Length of the body that follows.

    Raises:
        BadFrame: too long.
    """
    size = int.from_bytes(head, "big")
    if size > MAX_FRAME:
        raise BadFrame(f"frame of {size} bytes announced, at most {MAX_FRAME} expected")
    return size


def unpack(body: bytes) -> dict[str, Any]:
    """The object of a frame.

    Raises:
        BadFrame: no JSON object.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise BadFrame(f"frame of {len(body)} bytes: no JSON") from None
    if not isinstance(found, dict):
        raise BadFrame(f"frame: {type(found).__name__}, expected an object")
    return found
