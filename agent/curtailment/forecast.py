"""What the agent would do for a limit: which machines and switches, why, how much, how soon. Moves nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from agent.clock import Clock
from agent.curtailment.curtailable import reach
from agent.curtailment.fleet import STALE_PERIODS, Fleet, KnownMachine
from agent.curtailment.gates import Gates
from agent.curtailment.planner import Choice, Machine, Output, choose_machines, choose_outputs
from agent.ledger import Ledger
from agent.live import LiveState
from config.site import Site
from wire.errors import WireError

MAX_W = 10_000_000_000
REMEMBERED = 500
KINDS = ("sleep", "open")


@dataclass(frozen=True, slots=True)
class Forecaster:
    """Asks what an order would ask, and starts nothing: it holds no port through which anything could be moved."""

    site: Site
    ledger: Ledger
    fleet: Fleet
    gates: Gates
    live: LiveState
    clock: Clock
    emergency_w: Callable[[], int]

    async def answer(self, doc: Mapping[str, Any]) -> str:
        """A request out of the inbox (``limit_w``); the plan as JSON text.

        Raises:
            WireError: no such limit.
        """
        limit_w = doc.get("limit_w")
        if isinstance(limit_w, bool) or not isinstance(limit_w, int) or not 0 <= limit_w <= MAX_W:
            raise WireError(f"limit_w: {str(limit_w)[:40]!r}, expected whole watts from 0 to {MAX_W}")
        return json.dumps(await self.plan(limit_w), ensure_ascii=False)

    async def plan(self, limit_w: int) -> dict[str, Any]:
        """The plan for a limit at the boundary, as plain data; W and s, ``None`` where something is not known."""
        took = {kind: await self._took_s(kind) for kind in KINDS}
        point = self.site.measured_at.net_import
        power = self.live.power(point).value_w
        target = max(limit_w, self.emergency_w())
        excess = None if power is None else power - target
        sleepers = self.fleet.sleepers({})
        found = self.fleet.outputs({})
        unloaded = choose_outputs([o for o in found if o.battery], excess) if excess is not None else Choice(())
        rest = None if excess is None else excess - unloaded.expected_w
        asleep = choose_machines(sleepers, rest) if rest is not None and rest > 0 else Choice(())
        rest = None if rest is None else rest - asleep.expected_w
        outputs = [self._after(o, asleep.expected) for o in found]
        more = (
            choose_outputs([o for o in outputs if not o.battery], rest) if rest is not None and rest > 0 else Choice(())
        )
        opened = Choice(unloaded.targets + more.targets, {**unloaded.expected, **more.expected})
        after = None if power is None else power - asleep.expected_w - opened.expected_w
        return {
            "at": self.clock.now_ms(),
            "site": self.site.site.id,
            "mode": self.gates.mode,
            "point": point,
            "power_w": power,
            "limit_w": limit_w,
            "target_w": target,
            "excess_w": excess,
            "expected_w": asleep.expected_w + opened.expected_w,
            "after_w": after,
            "reached": None if after is None else after <= target,
            "steps": self._steps(unloaded, asleep, more, took),
            "machines": self._machines(asleep, sleepers),
            "switches": self._switches(opened, outputs),
            "left_out": {"machines": self._left_machines(asleep, sleepers), "switches": self._left_switches(opened)},
            "reactive": self._reactive(point, power, after, opened),
            "floors": (await reach(self.site, self.fleet, self.gates, self.live)).total.model_dump(),
        }

    def _reactive(self, point: str, power: int | None, after: int | None, opened: Choice) -> dict[str, Any]:
        """Reactive power after the cut: what the machines and switches of the plan leave behind."""
        now = self.fleet.positions()
        then = now | dict.fromkeys(opened.targets, False)
        var = self.live.reactive_var(point)
        return self.fleet.banks.expect(var, (power, after), self.fleet.energised(now), self.fleet.graph.energised(then))

    async def _took_s(self, kind: str) -> float | None:
        """Median time from a write's intent to its outcome in this ledger; ``None`` where none was ever made."""
        rows = await self.ledger.read(
            "SELECT outcome_ms - intent_ms FROM step WHERE kind=? AND outcome_ms IS NOT NULL AND status != 'unknown' "
            "ORDER BY outcome_ms DESC LIMIT ?",
            *(kind, REMEMBERED),
        )
        return median(max(0, int(row[0])) for row in rows) / 1000 if rows else None

    @staticmethod
    def _after(output: Output, asleep: Mapping[str, int]) -> Output:
        """The output once the chosen machines behind it sleep: what they gave up is not there a second time."""
        gone = sum(watt for machine, watt in asleep.items() if machine in output.machines)
        return replace(output, gain_w=max(0, output.gain_w - gone))

    def _steps(
        self, unloaded: Choice, asleep: Choice, opened: Choice, took: Mapping[str, float | None]
    ) -> list[dict[str, Any]]:
        timing = self.site.agent.timing
        found = []
        if unloaded.targets:
            found.append(
                {
                    "kind": "switch",
                    "count": len(unloaded.targets),
                    "expected_w": unloaded.expected_w,
                    "write_s": took["open"],
                    "confirm_within_s": timing.switch_confirm_s,
                    "wait_before_s": 0.0,
                    "why": "batteries that charge go before any machine; only where the order allows switches",
                }
            )
        if asleep.targets:
            rounds = -(-len(asleep.targets) // timing.sleep_concurrency)
            each = took["sleep"]
            found.append(
                {
                    "kind": "sleep",
                    "count": len(asleep.targets),
                    "expected_w": asleep.expected_w,
                    "write_s": None if each is None else round(each * rounds, 3),
                    "confirm_within_s": timing.sleep_confirm_s,
                    "wait_before_s": 0.0,
                    "why": "sleep comes first, the least efficient machines before the others",
                }
            )
        if opened.targets:
            found.append(
                {
                    "kind": "switch",
                    "count": len(opened.targets),
                    "expected_w": opened.expected_w,
                    "write_s": took["open"],  # side by side: each is a task of its own
                    "confirm_within_s": timing.switch_confirm_s,
                    "wait_before_s": timing.cooldown_s if asleep.targets else 0.0,
                    "why": "sleep alone does not suffice; only where the order allows switches",
                }
            )
        return found

    def _machines(self, asleep: Choice, sleepers: list[Machine]) -> list[dict[str, Any]]:
        by_id = {m.id: m for m in sleepers}
        return [
            {
                "id": name,
                "group": self.fleet.machines[name].group.id,
                "expected_w": asleep.expected[name],
                "why": f"{by_id[name].joule_per_th:.1f} J/TH",
            }
            for name in asleep.targets
        ]

    def _switches(self, opened: Choice, outputs: list[Output]) -> list[dict[str, Any]]:
        by_id = {o.id: o for o in outputs}
        return [
            {
                "id": name,
                "dispatch_name": self.gates.switches[name].dispatch_name,
                "expected_w": opened.expected[name],
                "machines": len(by_id[name].machines),
                "why": _why(by_id[name]),
            }
            for name in opened.targets
        ]

    def _left_switches(self, opened: Choice) -> list[dict[str, Any]]:
        return [
            {"id": name, "why": self.gates.may_open(name) or "not needed"}
            for name in self.fleet.switches
            if name not in opened.targets
        ]

    def _left_machines(self, asleep: Choice, sleepers: list[Machine]) -> list[dict[str, Any]]:
        chosen, can = set(asleep.targets), {m.id for m in sleepers}
        counts = Counter(
            (machine.group.id, "not needed" if machine.id in can else self._why_not(machine))
            for machine in self.fleet.machines.values()
            if machine.id not in chosen
        )
        return [{"group": group, "why": why, "count": count} for (group, why), count in sorted(counts.items())]

    def _why_not(self, machine: KnownMachine) -> str:
        seen = self.live.miners.get(machine.id)
        if (why := self.gates.maintained(machine.group.id)) is not None:
            return why
        if machine.sleeper is None:
            return "cannot be put to sleep, or its owner did not allow it"
        if seen is None or seen.status is None:
            return "does not answer"
        if seen.status.sleeping:
            return "asleep already"
        if (self.clock.mono_ns() - seen.mono_ns) / 1e9 > STALE_PERIODS * machine.group.period_s + 10:
            return "its newest answer is too old"
        return "put to sleep by an order already"


def _why(output: Output) -> str:
    if output.battery:
        return "a battery that charges"
    return "САОН feeder, taken last" if output.saon else "fewest operations for what is missing"
