"""For which pool each machine works, and when that changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import structlog

from agent.inventory.grouped import MANY, Change, Grouped, Pending, fields
from agent.inventory.pools import FEE, Judged, PoolList, Verdict, current, mask, pool_host, set_up
from agent.inventory.workdays import WorkCalendar, notice_due
from config.rules.passports import local_day
from drivers.capabilities import Pool

log = structlog.get_logger()

EV = "pool_switch"
EV_SETUP = "pool_setup"
JOIN = " + "
MAX_POOLS = 8
"""Of one machine that are looked at; firmwares have three."""
NONE = "none"


class SeenPool(msgspec.Struct, frozen=True, omit_defaults=True):
    """One pool as a machine has it, fit to be kept and shown: host without port, account masked."""

    host: str | None
    worker: str | None = None
    active: bool | None = None


class PoolHistory(msgspec.Struct, omit_defaults=True):
    """The pools of one machine: the told one (``base``), the one it has now, and the last switch that was told."""

    base: tuple[str, ...] | None = None
    base_last_ms: int | None = None
    """When it was last seen at them, once it is no longer."""
    now: tuple[str, ...] | None = None
    now_first_ms: int | None = None
    """When it was first seen at ``now``."""
    was: tuple[str, ...] | None = None
    """Before the last switch."""
    switched_ms: int | None = None
    """The last switch: when the new pool was first seen."""
    old_last_ms: int | None = None
    """The last switch: when the old pool was last seen."""
    setup: tuple[str, ...] | None = None
    """All pools it is set up for, as they were told."""


@dataclass(frozen=True, slots=True)
class SwitchSummary:
    """One switch of one group, over its machines."""

    group: str
    was: str
    now: str
    machines: int
    first_seen_ms: int
    last_seen_old_ms: int | None
    notice_due: date | None
    verdicts: tuple[tuple[str, Verdict], ...]


@dataclass(frozen=True, slots=True)
class PoolSummary:
    """Machines of one group at one pool."""

    group: str
    pool: str
    verdict: Verdict
    machines: int
    active: bool
    """Working for it now, by its own word; else only set up."""


class PoolWatch:
    """Every machine's pools against the list.

    Args:
        accredited: the list.
        grouped: where changes are gathered.
        calendar: working days.
        secret: keys the digests of accounts.
    """

    def __init__(self, accredited: PoolList, grouped: Grouped, calendar: WorkCalendar, secret: bytes) -> None:
        self.accredited = accredited
        self.calendar = calendar
        self._grouped = grouped
        self._secret = secret
        self._open: dict[str, Change] = {}
        """Machine → its switch that is not told yet."""
        self._open_setup: dict[str, tuple[Change, tuple[str, ...]]] = {}
        """Machine → its other list of pools that is not told yet."""
        self._words: dict[str, str] = {}

    def masked(self, pools: Sequence[Pool]) -> tuple[SeenPool, ...]:
        """A machine's pools, fit to be kept."""
        return tuple(
            SeenPool(self._word(_host(pool.url)), mask(pool.user, self._secret), pool.active)
            for pool in pools[:MAX_POOLS]
            if pool.url or pool.user
        )

    def _word(self, text: str | None) -> str | None:
        """One object for each spelling: 30,000 machines name the same few hosts."""
        if text is None or len(self._words) > 10_000:
            return text
        return self._words.setdefault(text, text)

    def judged(self, pools: Iterable[SeenPool], day: date) -> list[Judged]:
        """What the list says of them on a day."""
        return [self.accredited.judge(pool.host, day) for pool in pools]

    def take(
        self,
        machine: str,
        group: str,
        pools: Sequence[SeenPool],
        history: PoolHistory,
        at_ms: int,
        before_ms: int | None,
    ) -> None:
        """A machine's pools are others than at the last look, or it is looked at for the first time.

        Args:
            machine: its id.
            group: its group.
            pools: from :meth:`masked`.
            history: of this machine; changed here.
            at_ms: when it said so.
            before_ms: when it was last asked before.
        """
        judged = self.judged(pools, local_day(at_ms // 1000))
        self._take_setup(machine, group, set_up(judged), history, at_ms)
        now = _current(pools, judged)
        was = history.now
        if now is None or now == was:
            if now is None and was is not None and was == history.base and history.base_last_ms is None:
                history.base_last_ms = before_ms
            elif now is not None and now == history.base:
                history.base_last_ms = None
            return
        if was is not None and was == history.base and history.base_last_ms is None:
            history.base_last_ms = before_ms
        opened = self._open.pop(machine, None)
        if opened is not None:
            self._grouped.remove(opened, machine)
        history.now, history.now_first_ms = now, at_ms
        if now == history.base:
            history.base_last_ms = None  # back before it was told: a fail-over, no switch
            return
        change = Change(EV, group, None if history.base is None else _name(history.base), _name(now))
        self._open[machine] = self._grouped.add(
            change, machine, at_ms, old_ms=history.base_last_ms, own=(change.was, change.now)
        )

    def _take_setup(self, machine: str, group: str, setup: tuple[str, ...], history: PoolHistory, at_ms: int) -> None:
        opened = self._open_setup.get(machine)
        if not setup or (opened is not None and opened[1] == setup):
            return
        if opened is not None:
            del self._open_setup[machine]
            self._grouped.remove(opened[0], machine)
        if history.setup is None:
            history.setup = setup
        elif setup != history.setup:
            change = Change(EV_SETUP, group, _name(history.setup), _name(setup))
            kept = self._grouped.add(change, machine, at_ms, own=(change.was, change.now))
            self._open_setup[machine] = (kept, setup)

    def resume(self, machine: str, group: str, history: PoolHistory, at_ms: int) -> None:
        """After a restart: what was seen and not told is gathered again."""
        if history.now is not None and history.now != history.base:
            base = None if history.base is None else _name(history.base)
            change = Change(EV, group, base, _name(history.now))
            self._open[machine] = self._grouped.add(
                change,
                machine,
                at_ms,
                first_ms=history.now_first_ms,
                old_ms=history.base_last_ms,
                own=(change.was, change.now),
            )

    def rekey(self, pools: Sequence[SeenPool], history: PoolHistory, day: date) -> None:
        """The list became another: a pool may go by another name now, which is no switch of the machine."""
        judged = self.judged(pools, day)
        if history.setup is not None:
            history.setup = set_up(judged) or history.setup
        now = _current(pools, judged)
        if now is None or history.now is None:
            return
        if history.now == history.base:
            history.base = now
        history.now = now

    def told(self, change: Change, pending: Pending, history_of: Callable[[str], PoolHistory | None]) -> dict[str, Any]:
        """Settle a change that is due: its machines' new pools become the known ones. Returns the record's fields."""
        if change.ev == EV_SETUP:
            return self._told_setup(change, pending, history_of)
        for machine in pending.machines:
            history = history_of(machine)
            self._open.pop(machine, None)
            if history is None or history.now is None:
                continue
            if history.base is not None:
                history.was, history.switched_ms = history.base, history.now_first_ms
                history.old_last_ms = history.base_last_ms
            history.base, history.base_last_ms = history.now, None
        more = self._more(change, pending)
        if change.was is not None:
            due = self.due(pending.first_ms)
            more |= {"due": None if due is None else due.isoformat()}
            more |= {"holidays_known": due is not None and self.calendar.covers(due)}
        return fields(change, pending, **more)

    def _told_setup(
        self, change: Change, pending: Pending, history_of: Callable[[str], PoolHistory | None]
    ) -> dict[str, Any]:
        for machine in pending.machines:
            history, opened = history_of(machine), self._open_setup.pop(machine, None)
            if history is not None and opened is not None:
                history.setup = opened[1]
        return fields(change, pending, **self._more(change, pending))

    def _more(self, change: Change, pending: Pending) -> dict[str, Any]:
        keys = () if change.now in {None, MANY} else (change.now or "").split(JOIN)
        verdicts = self._verdicts(keys, local_day(pending.first_ms // 1000))
        return {"verdicts": [[key, verdict.value] for key, verdict in verdicts]}

    def due(self, seen_ms: int) -> date | None:
        """Last day of the notice; ``None`` where the operator's own list of days leaves no working day."""
        try:
            return notice_due(seen_ms, self.calendar)
        except ValueError as error:
            log.error("workdays_unknown", error=str(error))
            return None

    def _verdicts(self, keys: Iterable[str], day: date) -> list[tuple[str, Verdict]]:
        named = {pool.name: pool for pool in self.accredited.pools}
        found = []
        for key in keys:
            pool = named.get(key)
            found.append((key, pool.on(day) if pool is not None else self.accredited.judge(key, day).verdict))
        return found

    # asking ----------------------------------------------------------------------------------------------------------

    def pools(self, seen: Mapping[str, tuple[str, Sequence[SeenPool]]], day: date) -> list[PoolSummary]:
        """Machines per group and pool; ``seen``: machine → (group, pools)."""
        counts: dict[tuple[str, str, Verdict, bool], int] = {}
        for group, pools in seen.values():
            judged = self.judged(pools, day)
            now = _current(pools, judged) or ()
            own = {(found.key, found.verdict, found.key in now) for found in judged} or {(NONE, Verdict.UNKNOWN, False)}
            for key, verdict, active in own:
                counts[group, key, verdict, active] = counts.get((group, key, verdict, active), 0) + 1
        return [PoolSummary(*key[:3], number, key[3]) for key, number in sorted(counts.items())]

    def switches(self, histories: Mapping[str, tuple[str, PoolHistory]], *, since_ms: int) -> list[SwitchSummary]:
        """Switches since then, per group, the newest first, those not told yet among them.

        Args:
            histories: machine → (group, its history).
            since_ms: older ones are left out.
        """
        found: dict[tuple[str, str, str], list[tuple[int, int | None]]] = {}
        for group, history in histories.values():
            if history.was is not None and history.switched_ms is not None and history.base is not None:
                key = (group, _name(history.was), _name(history.base))
                found.setdefault(key, []).append((history.switched_ms, history.old_last_ms))
            if None not in (history.base, history.now, history.now_first_ms) and history.now != history.base:
                key = (group, _name(history.base or ()), _name(history.now or ()))
                found.setdefault(key, []).append((history.now_first_ms or 0, history.base_last_ms))
        summaries = []
        for (group, was, now), times in found.items():
            first = min(at for at, _ in times)
            if first < since_ms:
                continue
            old = [at for _, at in times if at is not None]
            summaries.append(
                SwitchSummary(
                    group,
                    was,
                    now,
                    len(times),
                    first,
                    max(old, default=None),
                    self.due(first),
                    tuple(self._verdicts(now.split(JOIN), local_day(first // 1000))),
                )
            )
        return sorted(summaries, key=lambda item: (-item.first_seen_ms, item.group, item.now))


def _current(pools: Sequence[SeenPool], judged: Sequence[Judged]) -> tuple[str, ...] | None:
    return current([Pool(None, None, pool.active, None, None) for pool in pools], judged)


def _host(url: str | None) -> str | None:
    if url is not None and PoolList().judge(url, date.min).verdict is Verdict.FEE:
        return FEE
    return pool_host(url)


def _name(keys: Sequence[str]) -> str:
    return JOIN.join(keys)[:250]
