"""What PowerPlay answers, turned into the project's words. Pure functions.

Source: the vendor's API description (epicblockchain/epic-dashboard, docs/API.md) and published answers of an S19 XP.
"""

from __future__ import annotations

from typing import Any

from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, Identity, measured_or_none
from drivers.asic.fields import MAX_DEGREES_C, integer, mac, number, text, to_ths
from drivers.capabilities import Board, MinerStatus, Pool

FAMILY_NAME = "epic"
IDLING = "idling"
HASHING_THS = 0.1
Json = dict[str, Any]


def part(answer: Json, name: str) -> Json:
    """The object under a name; an empty one where there is none."""
    found = answer.get(name)
    return found if isinstance(found, dict) else {}


def operating_state(summary: Json) -> str | None:
    """``Mining``, ``Idling`` and others, as it says."""
    return text(part(summary, "Status").get("Operating State"))


def asleep(summary: Json) -> bool | None:
    """Whether it idles: its boards are off, by a command or because it lost its pool."""
    state = operating_state(summary)
    return None if state is None else state.lower() == IDLING


def lost_its_pool(summary: Json) -> bool:
    """Whether it idles for want of a pool: that ends without a command."""
    return part(summary, "Stratum").get("IsPoolConnected") is False and asleep(summary) is True


def epic_status(summary: Json, identity: Identity) -> MinerStatus:
    """One status from ``/summary`` and what was kept of ``/capabilities`` and ``/network``."""
    boards = _boards(summary)
    rates = [board.hashrate_ths for board in boards if board.hashrate_ths is not None]
    sleeping = asleep(summary)
    session = part(summary, "Session")
    hashrate = sum(rates) if rates else (0.0 if sleeping else None)
    errors = _errors(summary)
    if sleeping and hashrate is not None and hashrate > HASHING_THS:
        sleeping, errors = False, (*errors, "says that it idles, but hashes")
    power_w = measured_or_none(part(summary, "Power Supply Stats").get("Input Power"))
    degrees = [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    return MinerStatus(
        family=FAMILY_NAME,
        model=identity.model,
        firmware=text(summary.get("Software")),
        mac=identity.mac,
        serial=identity.serial,
        uptime_s=integer(session.get("Uptime")),
        sleeping=sleeping,
        hashrate_ths=hashrate,
        hashrate_nominal_ths=_nominal(summary),
        power_w=power_w,
        power_source="none" if power_w is None else "measured",
        temperature_max_c=max(degrees, default=None),
        fans_rpm=_fans(summary),
        boards=boards,
        pools=_pools(summary),
        errors=errors,
    )


def identity_of(capabilities: Json, network: Json) -> Identity:
    """Model and the control board's serial number from ``/capabilities``, MAC from ``/network``."""
    links = [link for link in list(network.values())[:8] if isinstance(link, dict)]
    return Identity(
        model=text(capabilities.get("Model")),
        mac=next((found for link in links if (found := mac(link.get("mac_address"))) is not None), None),
        serial=text(part(capabilities, "Control Board Version").get("cpuSerial")),
    )


def chips_per_board(capabilities: Json) -> int | None:
    """Chips that a board of this model has."""
    return integer(part(capabilities, "Performance Estimator").get("Chip Count"))


def refusal(answer: Json) -> str | None:
    """Why a command was refused, or ``None`` where it was taken: ``{"result": true, "error": null}``."""
    if answer.get("result") is True:
        return None
    return text(answer.get("error")) or "it did not say that it was taken"


def _boards(summary: Json) -> tuple[Board, ...]:
    enabled = {integer(row.get("Index")): row.get("Enabled") for row in _rows(summary, "HBStatus")}
    boards = []
    for row in _rows(summary, "HBs")[:MAX_BOARDS]:
        rate = row.get("Hashrate")
        degrees = number(row.get("Temperature"))
        index = integer(row.get("Index")) or 0
        is_on = enabled.get(index)
        boards.append(
            Board(
                index=index,
                hashrate_ths=to_ths(rate[0], "MH") if isinstance(rate, list) and rate else None,
                chips=None,
                temperature_max_c=degrees if degrees is not None and 0 < degrees < MAX_DEGREES_C else None,
                ok=is_on if isinstance(is_on, bool) else None,
            )
        )
    told = {board.index for board in boards}
    missing = [index for index, is_on in enabled.items() if index is not None and index not in told and is_on is False]
    boards += [Board(index, None, None, None, False) for index in missing[:MAX_BOARDS]]
    return tuple(sorted(boards, key=lambda board: board.index))


def _rows(answer: Json, name: str) -> list[Json]:
    listed = answer.get(name)
    return [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []


def _nominal(summary: Json) -> float | None:
    """The target of the tuner that runs, where it is one of hash rate."""
    for settings in list(part(part(summary, "PerpetualTune"), "Algorithm").values())[:4]:
        if isinstance(settings, dict) and isinstance(settings.get("Unit"), str):
            return to_ths(settings.get("Target"), settings["Unit"]) or None
    return None


def _fans(summary: Json) -> tuple[int, ...]:
    said = part(summary, "Fans Rpm")
    speeds = [integer(said.get(f"Fans Speed {at}")) for at in range(1, MAX_FANS + 1)]
    return tuple(speed for speed in speeds if speed is not None)


def _pools(summary: Json) -> tuple[Pool, ...]:
    """The pool in use with the session's shares, then the others configured; log-ins stay where they are."""
    stratum, session = part(summary, "Stratum"), part(summary, "Session")
    current = text(stratum.get("Current Pool"))
    connected = stratum.get("IsPoolConnected")
    pools = []
    if current is not None:
        pools.append(
            Pool(
                url=current,
                user=text(stratum.get("Current User")),
                active=connected if isinstance(connected, bool) else None,
                accepted=integer(session.get("Accepted")),
                rejected=integer(session.get("Rejected")),
            )
        )
    for row in _rows(summary, "StratumConfigs")[:8]:
        url = text(row.get("pool"))
        if url is not None and (current is None or not url.endswith(current)):
            pools.append(Pool(url=url, user=text(row.get("login")), active=False, accepted=None, rejected=None))
    return tuple(pools)


def _errors(summary: Json) -> tuple[str, ...]:
    found = [text(part(summary, "Status").get("Last Error")), text(summary.get("Last License Error"))]
    if lost_its_pool(summary):
        found.append("idles without a pool")
    return tuple(said for said in found if said is not None)
