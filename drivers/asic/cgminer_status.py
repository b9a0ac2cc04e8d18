"""From cgminer's answers to a :class:`MinerStatus`: what Antminer firmwares and their relatives share.

The families' own modules add what only they give (power, sleep mode, serial number). Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from drivers.asic.fields import first, integer, mac, number, rows, temperatures, text, to_ths
from drivers.capabilities import Board, MinerStatus, Pool

MAX_BOARDS = 16
MAX_FANS = 16
MAX_POOLS = 16

Answers = dict[str, dict[str, Any]]


HASHING_THS = 0.1
"""Above this rate a machine hashes, whatever it says of itself."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What seldom changes; kept between polls."""

    model: str | None = None
    firmware: str | None = None
    mac: str | None = None
    serial: str | None = None

    def over(self, other: Identity) -> Identity:
        """This one's fields, and the other's where this one has none."""
        return Identity(
            self.model or other.model,
            self.firmware or other.firmware,
            self.mac or other.mac,
            self.serial or other.serial,
        )

    @classmethod
    def of(cls, status: MinerStatus) -> Identity:
        """What a status says of it."""
        return cls(status.model, status.firmware, status.mac, status.serial)

    def into(self, status: MinerStatus) -> MinerStatus:
        """The status with this identity."""
        return replace(status, model=self.model, firmware=self.firmware, mac=self.mac, serial=self.serial)


def is_hashing(status: MinerStatus) -> bool:
    """Whether its hash rate says that it works; not where it says nothing."""
    return status.hashrate_ths is not None and status.hashrate_ths > HASHING_THS


def with_sleep(status: MinerStatus, asleep: bool | None, contrary: str) -> MinerStatus:
    """The status with what the machine says of sleeping; its hash rate wins, and ``contrary`` is then an error."""
    if not is_hashing(status):
        return replace(status, sleeping=asleep)
    return replace(status, sleeping=False, errors=(*status.errors, contrary) if asleep else status.errors)


def status_from(family: str, answers: Answers) -> MinerStatus:
    """Read ``summary``, ``stats``, ``pools`` and ``version`` answers, any of which may be missing but the first.

    Hash rates in GH/s unless ``rate_unit`` says otherwise, power never: these answers carry none that all share.
    """
    info, values = _stats(answers.get("stats"))
    summary = _first_row(answers.get("summary"), "SUMMARY")
    unit = first(values, "rate_unit")
    identity = identity_from(answers, info)
    boards = _boards(values)
    return MinerStatus(
        family=family,
        model=identity.model,
        firmware=identity.firmware,
        mac=identity.mac,
        serial=identity.serial,
        uptime_s=integer(first(summary, "Elapsed", "elapsed") or first(values, "Elapsed", "elapsed")),
        hashrate_ths=_hashrate(summary, values, unit),
        hashrate_nominal_ths=_positive(to_ths(first(values, "total_rateideal", "rate_ideal"), unit)),
        temperature_max_c=_hottest(values, boards),
        fans_rpm=_fans(values),
        boards=boards,
        pools=pools_from(answers.get("pools")),
    )


def identity_from(answers: Answers, info: dict[str, Any] | None = None) -> Identity:
    """Model and firmware from ``version`` or the head of ``stats``; MAC from ``stats`` where ``miner_id`` is one."""
    if info is None:
        info = _stats(answers.get("stats"))[0]
    version = _first_row(answers.get("version"), "VERSION")
    _, values = _stats(answers.get("stats"))
    return Identity(
        model=text(first(info, "Type", "type")) or text(first(version, "Type", "type")),
        firmware=text(first(info, "CompileTime")) or text(first(version, "CompileTime")),
        mac=mac(first(values, "miner_id")),
    )


def pools_from(answer: dict[str, Any] | None) -> tuple[Pool, ...]:
    """Pools of a ``pools`` answer, in its order."""
    return tuple(
        Pool(
            url=text(first(row, "URL", "url")),
            user=text(first(row, "User", "user")),
            active=_active(row),
            accepted=integer(first(row, "Accepted", "accepted")),
            rejected=integer(first(row, "Rejected", "rejected")),
        )
        for row in rows(answer, "POOLS")[:MAX_POOLS]
    )


def _active(row: dict[str, Any]) -> bool | None:
    active = row.get("Stratum Active")
    if isinstance(active, bool):
        return active
    state = first(row, "Status", "status")
    return state == "Alive" if isinstance(state, str) else None


def _stats(answer: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Head and values of a ``stats`` answer: two objects on the socket; ``INFO`` and one object over HTTP."""
    listed = rows(answer, "STATS")
    head = _first_row(answer, "INFO")
    values: dict[str, Any] = {}
    for row in listed:
        if "Type" in row and "Elapsed" not in row:
            head = row
        elif not values and any(name in row for name in ("Elapsed", "elapsed", "GHS 5s", "MHS 5s", "chain")):
            values = row
    return head, values


def _first_row(answer: dict[str, Any] | None, name: str) -> dict[str, Any]:
    listed = rows(answer, name)
    return listed[0] if listed else {}


def _hashrate(summary: dict[str, Any], values: dict[str, Any], unit: object) -> float | None:
    """The shortest average there is: sleep and wake must be seen within seconds."""
    for source in (summary, values):
        rate = to_ths(first(source, "GHS 5s"))
        if rate is None:
            rate = to_ths(first(source, "MHS 5s"), "MH")
        if rate is None:
            rate = to_ths(first(source, "rate_5s"), first(source, "rate_unit") or unit)
        if rate is not None:
            return rate
    for source in (summary, values):
        rate = to_ths(first(source, "GHS av"))
        if rate is None:
            rate = to_ths(first(source, "MHS av"), "MH")
        if rate is not None:
            return rate
    return None


def _boards(values: dict[str, Any]) -> tuple[Board, ...]:
    chains = rows(values, "chain")
    if chains:
        return tuple(_chain(row, values) for row in chains[:MAX_BOARDS])
    boards = []
    # Machines of other algorithms say MH/s by the names of their rates alone.
    unit = first(values, "rate_unit") or ("MH" if "MHS 5s" in values else None)
    for number_ in range(1, MAX_BOARDS + 1):
        chips = integer(values.get(f"chain_acn{number_}"))
        rate = to_ths(values.get(f"chain_rate{number_}"), unit)
        if not chips and not rate:
            continue  # a slot without a board: no chips, and "" or 0 for a rate
        boards.append(
            Board(
                index=number_ - 1,
                hashrate_ths=rate,
                chips=chips,
                temperature_max_c=_max_temperature(values, number_),
                ok=_board_ok(values.get(f"chain_acs{number_}"), chips),
            )
        )
    return tuple(boards)


def _chain(row: dict[str, Any], values: dict[str, Any]) -> Board:
    degrees = [*temperatures(row.get("temp_chip")), *temperatures(row.get("temp_pcb"))]
    chips = integer(row.get("asic_num"))
    return Board(
        index=integer(row.get("index")) or 0,
        hashrate_ths=to_ths(row.get("rate_real"), first(values, "rate_unit")),
        chips=chips,
        temperature_max_c=max(degrees, default=None),
        ok=None if chips is None else chips > 0,
    )


def _board_ok(chip_marks: object, chips: int | None) -> bool | None:
    """``chain_acsN`` has one ``o`` per good chip and ``x`` per dead one."""
    if isinstance(chip_marks, str) and chip_marks.strip():
        return "x" not in chip_marks.lower()
    return None if chips is None else chips > 0


def _max_temperature(values: dict[str, Any], board: int) -> float | None:
    names = (f"temp_chip{board}", f"temp_pcb{board}", f"temp2_{board}", f"temp{board}")
    return max((degrees for name in names for degrees in temperatures(values.get(name))), default=None)


def _hottest(values: dict[str, Any], boards: tuple[Board, ...]) -> float | None:
    degrees = [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    return max([*degrees, *temperatures(values.get("temp_max"))], default=None)


def _fans(values: dict[str, Any]) -> tuple[int, ...]:
    """Speeds of the fans there are; ``fan_num`` tells a fan that stands (0) from a slot without one."""
    listed = values.get("fan")
    speeds: Sequence[int | None]
    if isinstance(listed, list):
        speeds = [integer(speed) for speed in listed[:MAX_FANS]]
    else:
        count = integer(values.get("fan_num"))
        last = MAX_FANS if count is None else max(0, min(count, MAX_FANS))
        found = [integer(values.get(f"fan{at}")) for at in range(1, MAX_FANS + 1)]
        # Old firmwares number fans with holes (fan1, fan3, fan6): then the turning ones are what there is.
        with_holes = count is None or any(found[last:])
        speeds = [speed for speed in found if speed] if with_holes else found[:last]
    return tuple(speed for speed in speeds if speed is not None)


def _positive(value: float | None) -> float | None:
    return value if value else None


def measured_or_none(value: object) -> float | None:
    """Watts from a field that uses -1 or nothing for "unknown"."""
    watts = number(value)
    return watts if watts is not None and watts >= 0 else None
