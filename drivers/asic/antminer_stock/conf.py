"""The configuration of a stock Antminer, as far as sleep and wake need it. Pure functions.

Source: field reports on ``get_miner_conf.cgi`` and ``set_miner_conf.cgi``: the write must carry ``miner-mode`` as a
number *and* ``bitmain-work-mode`` as a string (with one of them alone the machine answers "OK" and does nothing), and
everything else as it was read, because what is missing is dropped.
"""

from __future__ import annotations

from typing import Any

from drivers.asic.fields import integer, text
from drivers.asic.work_mode import WorkModes
from drivers.errors import BadAnswer

FAMILY_NAME = "antminer-stock"
NORMAL = 0
SLEEP = 1
MAX_MODE = 9


def mode_of(conf: dict[str, Any]) -> int | None:
    """The work mode, 0 normal and 1 asleep; ``miner-mode`` decides, the other key was seen to be written in vain."""
    for key in ("miner-mode", "bitmain-work-mode"):
        mode = integer(conf.get(key))
        if mode is not None:
            return mode
    return None


def with_mode(conf: dict[str, Any], mode: int, name: str = "miner") -> dict[str, Any]:
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


def _is_mode(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_MODE


MODES = WorkModes(
    family=FAMILY_NAME,
    sleep=SLEEP,
    of=mode_of,
    put=with_mode,
    valid=_is_mode,
    expected=f"a mode of 0 to {MAX_MODE}",
    at_once=True,
)
