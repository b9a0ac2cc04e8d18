"""What Braiins OS answers on its GraphQL interface (21.09 to 25.05), turned into the project's words. Pure functions.

Source: the schemas of 21.09, 24.09, 25.03 and 25.05, published answers of 22.08, 24.09 and 25.03. Before REST there is
no query for "paused"; a mining program that does not run has no uptime.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drivers.asic.braiins.rest import BOOT_S, NAME, at
from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, MAX_POOLS, measured_or_none
from drivers.asic.fields import integer, rows, temperatures, text, to_ths
from drivers.asic.power import LimitState
from drivers.capabilities import Board, MinerStatus, Pool

PATH = "/graphql"
LOG_IN = (
    "mutation($username:String!,$password:String!)"
    "{auth{login(username:$username,password:$password){... on VoidResult{void} ... on AuthError{message}}}}"
)
STATUS = (
    "{bos{info{version{full}} uptime{durationS}} bosminer{info{modelName fans{name rpm} "
    "summary{power{limitW approxConsumptionW}} workSolver{nominalMhs realHashrate{mhs5S} "
    "childSolvers{name nominalMhs realHashrate{mhs5S} hwDetails{chips} temperatures{name degreesC}}} "
    "poolGroups{name pools{url user status active shares{acceptedSolutions rejectedSolutions}}}}}}"
)
STATE = "{bos{uptime{durationS}} bosminer{uptime{durationS}}}"
"""From 24.09; older versions know no uptime of the mining program."""
LIMIT = (
    "{bosminer{config{... on BosminerConfig{autotuning{mode powerTarget}}} "
    "metadata{autotuning{powerTarget{min max}}} info{summary{power{limitW}}}}}"
)
SET_LIMIT = (
    "mutation($limit:Int!){bosminer{config{updateAutotuning(input:{powerTarget:$limit},apply:true)"
    "{... on AutotuningOut{autotuning{powerTarget}} ... on AutotuningError{message} ... on AttributeError{message}}}}}"
)
STOP = "mutation{bosminer{stop{... on VoidResult{void} ... on BosminerError{message}}}}"
START = "mutation{bosminer{start{... on VoidResult{void} ... on BosminerError{message}}}}"
COOKIE = "session_id="
POWER_TARGET = "POWER_TARGET"
MAX_FIELDS = 100
MAX_DEPTH = 8


def data_of(answer: object) -> dict[str, Any] | None:
    """``data`` of an answer, where there is one."""
    found = at(answer, "data")
    return found if isinstance(found, dict) else None


def complaints(answer: object) -> str:
    """What an answer complains of, empty where it does not."""
    errors = at(answer, "errors")
    listed = errors if isinstance(errors, list) else []
    return "; ".join(str(at(error, "message"))[:120] for error in listed[:3])


def denial(answer: object) -> str | None:
    """Why a mutation was not carried out: its result is then a ``message``, at the end of a path of single objects."""
    found: object = data_of(answer)
    for _ in range(MAX_DEPTH):
        if not isinstance(found, dict):
            return None
        message = found.get("message")
        if isinstance(message, str):
            return message[:200]
        found = next(iter(found.values()), None)
    return None


def is_asleep(answer: object) -> bool | None:
    """From the answer to :data:`STATE`: the mining program does not run, and the system is not merely booting."""
    data = data_of(answer)
    bosminer, system_s = at(data, "bosminer"), integer(at(data, "bos", "uptime", "durationS"))
    if not isinstance(bosminer, dict) or "uptime" not in bosminer:
        return None
    if bosminer["uptime"] is not None:
        return False
    return True if system_s is not None and system_s > BOOT_S else None


def graphql_status(answers: Mapping[str, Any], *, mac: str | None = None) -> MinerStatus:
    """One status from the answers to :data:`STATUS` (or its parts, under any names) put together."""
    bos: dict[str, Any] = {}
    info: dict[str, Any] = {}
    for answer in answers.values():
        data = data_of(answer)
        bos = _merged(bos, at(data, "bos"))
        info = _merged(info, at(data, "bosminer", "info"))
    solver = info.get("workSolver")
    power_w = measured_or_none(at(info, "summary", "power", "approxConsumptionW"))
    chains = rows(solver, "childSolvers") if isinstance(solver, dict) else []
    boards = tuple(_board(n, row) for n, row in enumerate(chains[:MAX_BOARDS]))
    groups = rows(info, "poolGroups")[:MAX_POOLS]
    return MinerStatus(
        family=NAME,
        model=text(info.get("modelName")),
        firmware=text(at(bos, "info", "version", "full")),
        mac=mac,
        hashrate_ths=to_ths(at(solver, "realHashrate", "mhs5S"), "MH"),
        hashrate_nominal_ths=to_ths(at(solver, "nominalMhs"), "MH") or None,
        power_w=power_w,
        power_source="none" if power_w is None else "estimated",
        temperature_max_c=max((b.temperature_max_c for b in boards if b.temperature_max_c is not None), default=None),
        fans_rpm=fans_there([integer(row.get("rpm")) for row in rows(info, "fans")[:MAX_FANS]]),
        boards=boards,
        pools=tuple(_pool(row) for group in groups for row in rows(group, "pools"))[:MAX_POOLS],
        errors=_errors(answers),
    )


def fans_there(speeds: list[int | None]) -> tuple[int, ...]:
    """Speeds of the fans there are: it lists four slots, also on machines with two fans, whose upper half stands."""
    half = len(speeds) // 2
    if len(speeds) == 4 and all(speeds[:half]) and not any(speeds[half:]):
        speeds = speeds[:half]
    return tuple(speed for speed in speeds if speed is not None)


def limit_state(answer: object) -> LimitState | None:
    """The power target from the answer to :data:`LIMIT`; ``None`` where the machine is tuned to no watts."""
    data = data_of(answer)
    tuning = at(data, "bosminer", "config", "autotuning")
    watts = integer(at(tuning, "powerTarget"))
    if at(tuning, "mode") not in (POWER_TARGET, None) or not watts:
        return None
    bounds = at(data, "bosminer", "metadata", "autotuning", "powerTarget")
    return LimitState(
        now_w=watts,
        settings={"power_target_w": watts},
        lowest_w=integer(at(bounds, "min")),
        highest_w=integer(at(bounds, "max")),
    )


def session_of(cookies: tuple[str, ...]) -> str:
    """The session in ``Set-Cookie`` headers, empty where there is none."""
    for cookie in cookies:
        first = cookie.split(";", 1)[0].strip()
        if first.startswith(COOKIE):
            return first.removeprefix(COOKIE)
    return ""


def _merged(one: dict[str, Any], other: object, depth: int = 0) -> dict[str, Any]:
    """Two parts of one object; where both hold an object of the same name, these are put together too."""
    if not isinstance(other, dict):
        return one
    merged = dict(one)
    for name, value in list(other.items())[:MAX_FIELDS]:
        held = merged.get(name)
        both = isinstance(held, dict) and isinstance(value, dict) and depth < MAX_DEPTH
        merged[name] = _merged(held, value, depth + 1) if both and isinstance(held, dict) else value
    return merged


def _board(number: int, row: dict[str, Any]) -> Board:
    chips = integer(at(row, "hwDetails", "chips"))
    degrees = [degree for sensor in rows(row, "temperatures") for degree in temperatures(sensor.get("degreesC"))]
    return Board(
        index=number,
        hashrate_ths=to_ths(at(row, "realHashrate", "mhs5S"), "MH"),
        chips=chips,
        temperature_max_c=max(degrees, default=None),
        ok=None if chips is None else chips > 0,
    )


def _pool(row: dict[str, Any]) -> Pool:
    active = row.get("active")
    return Pool(
        url=text(row.get("url")),
        user=text(row.get("user")),
        active=active if isinstance(active, bool) else None,
        accepted=integer(at(row, "shares", "acceptedSolutions")),
        rejected=integer(at(row, "shares", "rejectedSolutions")),
    )


def _errors(answers: Mapping[str, Any]) -> tuple[str, ...]:
    appeals = [
        appeal
        for answer in answers.values()
        if isinstance(events := at(data_of(answer), "events"), dict)
        for appeal in rows(events, "appeals")
    ]
    return tuple(said for appeal in appeals[:20] if (said := text(appeal.get("message"))) is not None)
