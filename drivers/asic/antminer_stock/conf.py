"""The configuration of a stock Antminer, as far as sleep and wake need it. Pure functions.

Source: field reports on ``get_miner_conf.cgi`` and ``set_miner_conf.cgi``: the write must carry ``miner-mode`` as a
number *and* ``bitmain-work-mode`` as a string (with one of them alone the machine answers "OK" and does nothing), and
everything else as it was read, because what is missing is dropped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from drivers.asic.fields import integer, text
from drivers.errors import BadAnswer

FAMILY_NAME = "antminer-stock"
NORMAL = 0
SLEEP = 1
MAX_MODE = 9


@dataclass(frozen=True, slots=True)
class Prior:
    """What has to be put back on waking."""

    mode: int

    @property
    def asleep(self) -> bool:
        """True where it was asleep before, and so has to stay."""
        return self.mode == SLEEP

    def to_text(self) -> str:
        """Compact JSON, for the journal."""
        return json.dumps({"family": FAMILY_NAME, "mode": self.mode}, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_text(cls, prior: str) -> Prior:
        """Read what :meth:`to_text` wrote.

        Raises:
            ValueError: it is something else.
        """
        value = json.loads(prior[:1000])
        mode = value.get("mode") if isinstance(value, dict) and value.get("family") == FAMILY_NAME else None
        if not isinstance(mode, int) or isinstance(mode, bool) or not 0 <= mode <= MAX_MODE:
            raise ValueError(
                f"prior state of {FAMILY_NAME} with a mode of 0 to {MAX_MODE} expected, seen {prior[:80]!r}"
            )
        return cls(mode)


def mode_of(conf: dict[str, Any]) -> int | None:
    """The work mode, 0 normal and 1 asleep; ``miner-mode`` decides, the other key was seen to be written in vain."""
    for key in ("miner-mode", "bitmain-work-mode"):
        mode = integer(conf.get(key))
        if mode is not None:
            return mode
    return None


def with_mode(conf: dict[str, Any], mode: int, *, name: str = "miner") -> dict[str, Any]:
    """The body of a write that changes the mode and nothing else.

    Raises:
        BadAnswer: what was read is not a whole configuration; writing it back would lose the pools.
    """
    pools = conf.get("pools")
    if not isinstance(pools, list) or mode_of(conf) is None:
        raise BadAnswer(
            f"{name}: the configuration read has no pools or no mode, so it is not whole; not written back. "
            f"Keys seen: {sorted(conf)[:20]}"
        )
    body = {**conf, "miner-mode": mode, "bitmain-work-mode": str(mode)}
    if "freq-level" not in body and text(conf.get("bitmain-freq-level")) is not None:
        # The vendor's own page sends both names of this setting.
        body["freq-level"] = conf["bitmain-freq-level"]
    return body


def refusal(answer: dict[str, Any]) -> str | None:
    """Why a write was refused, or ``None`` where it was taken: ``{"stats": "success"}`` or ``{"success": true}``."""
    if answer.get("stats") == "success" or answer.get("success") is True:
        return None
    return f"{text(answer.get('code')) or 'no code'}: {text(answer.get('msg')) or 'no message'}"
