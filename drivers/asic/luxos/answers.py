"""What LuxOS answers, turned into the project's words. Pure functions.

Source: Luxor's API documentation (``curtail``, ``logon``, ``session``, ``power``) and published answers of an S19k Pro.
"""

from __future__ import annotations

import re
from dataclasses import replace

from drivers.asic.cgminer_status import Answers, Identity, identity_from, measured_or_none, status_from, with_sleep
from drivers.asic.fields import first, mac, number, rows, text
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer

FAMILY_NAME = "luxos"
COMMANDS = ("summary", "stats", "pools", "power", "config", "events", "version")
SESSION_ACTIVE = 402
"""Code of ``logon`` while another session is open; a session dies 60 s after its last use."""
MAX_EVENTS = 20
_SESSION_ID = re.compile(r"[A-Za-z0-9]{1,64}")


def curtailed(config: dict[str, object] | None) -> bool | None:
    """Whether a ``config`` answer says that the machine sleeps; ``None`` where it does not say."""
    row = next(iter(rows(config, "CONFIG")), {})
    mode = row.get("CurtailMode")
    if not isinstance(mode, str):
        return None
    lowered = mode.strip().lower()
    if lowered in ("", "none"):
        return False
    return True if lowered.startswith("sleep") else None


def session_id(answer: dict[str, object]) -> str:
    """The id in a ``logon`` answer.

    Raises:
        BadAnswer: there is none, or not one that may be sent back.
    """
    found = next(iter(rows(answer, "SESSION")), {}).get("SessionID")
    if not isinstance(found, str) or _SESSION_ID.fullmatch(found) is None:
        raise BadAnswer("logon gave no session id")
    return found


def luxos_status(answers: Answers) -> MinerStatus:
    """One status from the answers to :data:`COMMANDS`, of which only ``summary`` must be there."""
    status = status_from(FAMILY_NAME, answers)
    config = next(iter(rows(answers.get("config"), "CONFIG")), {})
    version = next(iter(rows(answers.get("version"), "VERSION")), {})
    head = next((row for row in rows(answers.get("stats"), "STATS") if "Type" in row), {})
    firmware = text(first(head, "Miner")) or text(first(version, "Miner", "LUXminer"))
    identity = Identity(
        model=text(config.get("Model")),
        firmware=firmware,
        mac=mac(config.get("MACAddr")),
        serial=text(config.get("SerialNumber")),
    ).over(identity_from(answers))
    power = next(iter(rows(answers.get("power"), "POWER")), {})
    power_w = measured_or_none(power.get("Watts"))
    source = "none" if power_w is None else ("measured" if power.get("PSU") is True else "estimated")
    read = replace(
        identity.into(status),
        hashrate_nominal_ths=status.hashrate_nominal_ths or number(config.get("NameplateTHS")) or None,
        power_w=power_w,
        power_source=source,
        errors=_events(answers),
    )
    return with_sleep(read, curtailed(answers.get("config")), "told to sleep, but hashing")


def _events(answers: Answers) -> tuple[str, ...]:
    events = []
    for row in rows(answers.get("events"), "EVENTS")[:MAX_EVENTS]:
        where = " ".join(str(part) for part in (row.get("Target"), row.get("ID")) if part is not None)
        events.append(f"{text(row.get('Code'))}: {text(row.get('Description'))} ({where[:40]})")
    return tuple(events)
