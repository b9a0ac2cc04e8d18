"""Bitmain's second form of the JSON socket: the web interface's answers, asked for with ``"new_api": true``.

The mark has to stand beside ``command``; inside ``parameter`` it is silently taken for nothing and the old form comes.
Source: asic-rs, field reports.
"""

from __future__ import annotations

from typing import Any

import msgspec

from drivers.asic.exchange import exchange, named, until_nul
from drivers.asic.fields import rows
from drivers.asic.repair import MAX_BYTES, parse_answer


async def ask_new_api(host: str, port: int, command: str, timeout_s: float) -> dict[str, Any]:
    """The answer to a command in the new form.

    Raises:
        DriverError: it did not answer, or not in a way that can be understood.
    """
    name = f"miner {host}:{port}: {command} (new_api)"
    request = msgspec.json.encode({"command": command, "new_api": True})
    with named(name, timeout_s):
        data = await exchange(host, port, request, timeout_s=timeout_s, complete=until_nul, max_bytes=MAX_BYTES)
    return parse_answer(data, source=name)


def is_new_form(stats: dict[str, Any]) -> bool:
    """Whether a ``stats`` answer is in the new form: its model stands under ``INFO``, its boards under ``chain``."""
    return bool(rows(stats, "INFO")) or any("chain" in row for row in rows(stats, "STATS"))
