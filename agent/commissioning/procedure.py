"""One test of one output, from the first reading to the load that is back.

Intents are durable before the writes they announce. Whatever stops a test, it closes nothing: a switch that it opened
stays open until a person decides. Only a test that passed closes, and only on a person's word.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.clock import Clock
from agent.commissioning.guards import Guards
from agent.commissioning.judge import SILENT, Seen, judge, mute, needed_w, too_small
from agent.commissioning.machines import Machines
from agent.commissioning.outcome import Failed, Outcome, Stopped
from agent.commissioning.plan import Plan
from agent.commissioning.request import Wish
from agent.commissioning.sampling import COUNT, Samples
from agent.curtailment.shed import Shedder
from agent.live import LiveState
from config.site import Site
from drivers.capabilities import Position, Switch, SwitchState
from wire.acts import OutputTest

log = structlog.get_logger()

LOOK_S = 0.1
SETTLE_S = 1.0
"""A meter's own averaging: readings this soon after a movement are not used."""
UNKNOWN_S = 3.0
"""A position may be unreadable for so long before it counts as doubt."""
BACK_SHARE = 0.8
"""The load is back when so much of it is."""


@dataclass(slots=True)
class Hands:
    """What a test works with."""

    site: Site
    live: LiveState
    clock: Clock
    guards: Guards
    machines: Machines
    shedder: Shedder
    switches: dict[str, Switch]
    owner: Callable[[str], str | None]
    """Metering point → the output whose opening should make it fall."""
    intend: Callable[[str, dict[str, Any], dict[str, str]], Awaitable[None]]
    """(event, detail, priors): makes an intent durable."""
    say: Callable[[str, str, str | None], None]
    """(phase, text, what is waited for)."""


@dataclass(slots=True)
class Trial:
    """See the module. :meth:`run` returns when nothing more is done; :attr:`outcome` tells."""

    wish: Wish
    plan: Plan
    hands: Hands
    outcome: Outcome
    priors: dict[str, str] = field(default_factory=dict)
    """Machines that this test laid down and has not put back, with what they were."""
    confirmed_by: str | None = None
    """Who said that the switch may be closed."""
    stop_why: str | None = None
    """A person stopped it, or another master wrote."""
    foreign: str | None = None
    _opened_ns: int = 0
    _open_ms: int = 0
    _unbroken: bool = False
    _unknown_ns: int = 0
    _closed_before: frozenset[str] = frozenset()
    _awake: frozenset[str] = frozenset()

    @property
    def output(self) -> str:
        """The output under test."""
        return self.plan.output

    async def run(self) -> None:
        """Carry the test out.

        Raises:
            LedgerError: an intent could not be made durable; nothing was written for it.
        """
        try:
            await self._prepare()
            await self._sleep()
            await self._open()
            await self._watch()
            await self._close()
            await self._return()
            self.outcome.passed = True
        except Stopped as stopped:
            self.outcome.why.append(str(stopped))
            await self._after_failure()
        except Failed as failed:
            self.outcome.why.append(str(failed))
            self.outcome.refused = {self.output: str(failed)} | failed.refused
            await self._after_failure()

    # before ---------------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        self._go_on()
        behind = self.hands.machines.behind(self.output)
        running = self.hands.machines.running(behind)
        self._awake = frozenset(m.id for m in running)
        unable = [m.id for m in running if m.sleeper is None]
        if not self.wish.live_load and (unable or not running):
            told = f"{len(unable)} of {len(running)} machines behind it cannot sleep" if running else "nothing sleeps"
            raise Stopped(f"{self.output}: {told}; load would be cut live: that needs --live-load")
        before = await self._measure("reading", f"reading {len(self.plan.judged)} meters before anything is moved")
        if lost := mute(self.plan, before):
            raise Stopped(
                f"{self.output}: {', '.join(lost)} cannot be read, so it would not be seen to move; "
                "put it right, or leave it out by name (--without)"
            )
        self.outcome.load_w = load_w = self._expected(before)
        kept = running if self.wish.live_load else running[: self.wish.awake]
        going = [] if self.wish.live_load else running[self.wish.awake :]
        rest_w = load_w - sum(max(0, self.hands.machines.draw_w(m) - round(m.group.sleep_w)) for m in going)
        if (why := too_small(self.plan, rest_w, before)) is not None:
            raise Stopped(why + self._advice(rest_w, before, [self.hands.machines.draw_w(m) for m in running]))
        self.outcome.cut_live = len(kept)

    def _advice(self, rest_w: int, before: dict[str, Seen], draws_w: list[int]) -> str:
        lacking = needed_w(self.plan, before) - rest_w
        each = sum(draws_w) / len(draws_w) if draws_w else 0
        if each <= 0 or self.wish.live_load:
            return "; connect a test load"
        count = self.wish.awake + math.ceil(1.5 * lacking / each)
        return f"; leave machines running (--awake {count}), or cut all of them live (--live-load)"

    def _expected(self, before: dict[str, Seen]) -> int:
        """Power behind the output: its own meter's, else the sum of what the machines say."""
        at_feeder = None if self.plan.feeder is None else before.get(self.plan.feeder, SILENT).power_w
        if at_feeder is not None:
            return at_feeder
        return sum(self.hands.machines.draw_w(m) for m in self.hands.machines.behind(self.output))

    async def _sleep(self) -> None:
        if self.wish.live_load:
            return
        running = self.hands.machines.running(self.hands.machines.behind(self.output))[self.wish.awake :]
        self._say("sleep", f"{len(running)} machines go to sleep, {self.wish.awake} stay awake")
        found, failed = await self.hands.machines.priors(running)
        self._go_on()
        await self.hands.intend("commission_sleep", {"machines": len(found)}, found)
        self.priors = found
        await self.hands.machines.lay_down(tuple(found))
        deadline = self._in(self.hands.site.agent.timing.sleep_confirm_s)
        while left := [m for m in found if not self.hands.machines.asleep(m)]:
            if self._now() > deadline:
                break
            await self._pause()
        awake = sorted({*failed, *left})
        if len(awake) > self.wish.awake:
            raise Stopped(
                f"{self.output}: {len(awake)} machines did not fall asleep ({', '.join(awake[:5])}); "
                f"to cut them live, allow it (--awake {len(awake)} or --live-load)"
            )
        self.outcome.slept = len(found) - len(left)
        self.outcome.cut_live += len(awake)
        cooldown_s = self.hands.site.agent.timing.cooldown_s
        self._say("cool", f"{self.outcome.slept} machines sleep; cooling for {cooldown_s:g} s")
        deadline = self._in(cooldown_s)
        while self._now() < deadline:
            await self._pause()

    async def _measure(self, phase: str, text: str) -> dict[str, Seen]:
        """A few fresh samples of every point; what does not speak in time is silent."""
        self._say(phase, text)
        samples = Samples(self.hands.live, self.plan.judged, self._now())
        deadline = self._in(self._sampling_s())
        while not samples.full(self.plan.judged) and self._now() < deadline:
            await self._pause()
            samples.look()
        return samples.result()

    def _sampling_s(self) -> float:
        devices = {p.device for p in self.hands.site.metering_points if p.id in self.plan.judged}
        periods = [d.period_s for d in self.hands.site.devices if d.id in devices]
        return SETTLE_S + 2 * COUNT * max([1.0, *periods]) + 2

    # opening --------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        before = await self._measure("reading", "reading the meters just before the opening")
        if lost := mute(self.plan, before):
            raise Stopped(f"{self.output}: {', '.join(lost)} went silent before the opening")
        expected_w = self._expected(before)
        if (why := too_small(self.plan, expected_w, before)) is not None:
            raise Stopped(why + self._advice(expected_w, before, []))
        self.outcome.before, self.outcome.expected_w = before, expected_w
        port = self.hands.switches[self.output]
        await self._read(port)
        self._gate(self.hands.guards.may_open(self.output, retest=self.wish.retest))
        await self.hands.intend("commission_open", {"expected_w": expected_w, "meter": self.plan.meter}, self.priors)
        self._gate(self.hands.guards.may_open(self.output, retest=self.wish.retest))  # a tag while it was written
        self._go_on()
        seen = self.hands.live.switches.items()
        self._closed_before = frozenset(s for s, state in seen if state.position is Position.CLOSED)
        self._say("open", f"{self.output}: open")
        began = self._now()
        answer = await port.open()
        within_s = self.hands.site.agent.timing.switch_confirm_s
        state = await self.hands.shedder.await_position(self.output, port, Position.OPEN, within_s=within_s)
        self._opened_ns = self._now()
        self.outcome.opened_ms = self.hands.clock.now_ms()
        if state.position is not Position.OPEN:
            await self._did_not_open(f"{answer.status} {answer.detail}".strip(), state.position, within_s)
        self._unbroken = True
        self._open_ms = round((self._opened_ns - began) / 1e6)

    async def _did_not_open(self, answer: str, position: Position, within_s: float) -> None:
        """Whatever else moved says what the command really did."""
        self.outcome.after = after = await self._measure("diagnosis", f"{self.output} did not open; what did?")
        verdict = judge(self.plan, self.outcome.expected_w or 0, self.outcome.before, after)
        why = f"{self.output} did not open: position {position} {within_s:g} s after the command ({answer})"
        raise await self._failure(why, verdict.moved, nothing="; no meter shows that anything else did")

    async def _failure(self, why: str, moved: tuple[str, ...], *, nothing: str = "") -> Failed:
        """A failure that names the outputs which this command seems to have moved."""
        named = await self._opened_too()
        for point in moved:
            if (owner := self.hands.owner(point)) is not None and owner != self.output:
                named.setdefault(owner, []).append(f"meter {point} fell")
        told = {o: f"{self.output}'s command opened what {o} should ({', '.join(w)})" for o, w in named.items()}
        return Failed("; ".join([why, *told.values()]) if told else why + nothing, told)

    async def _opened_too(self) -> dict[str, list[str]]:
        """Switches that opened with this one and are not behind it."""
        others = [s for s in self.hands.switches if s in self._closed_before - {self.output, *self.plan.dark}]
        states = await asyncio.gather(*(self.hands.switches[s].read() for s in others))
        for other, state in zip(others, states, strict=True):
            self.hands.live.put_switch(other, state)
        return {
            other: ["its contacts say open"]
            for other, state in zip(others, states, strict=True)
            if state.position is Position.OPEN
        }

    async def _watch(self) -> None:
        """It stays open for longer than what could close it again, and the meters say what fell."""
        port, guard_s = self.hands.switches[self.output], self.plan.guard_s
        self._say("watch", f"{self.output} is open; it has to stay so for {guard_s:g} s")
        still = (self.plan.meter, *self.plan.still)
        samples = Samples(self.hands.live, self.plan.judged, self._opened_ns + int(SETTLE_S * 1e9))
        end, limit = self._opened_ns + int(guard_s * 1e9), self._in(max(guard_s, self._sampling_s()))
        state = await self._read(port)
        while self._now() < end or not (samples.full(still) or self._now() > limit) or self._unknown_ns:
            await self._pause()
            state = await self._read(port)
            samples.look()
            if self.foreign is not None:
                raise Failed(f"{self.output}: {self.foreign} while it was under test")
            if not self._still_open(state):
                raise await self._broken(port)
        stayed_s = int((self._now() - self._opened_ns) / 1e9)
        self.outcome.after = after = samples.result()
        expected_w = self.outcome.expected_w or 0
        verdict = judge(self.plan, expected_w, self.outcome.before, after)
        self.outcome.test = OutputTest(
            output=self.output,
            fingerprint=self.plan.fingerprint,
            expected_w=expected_w,
            seen_w=verdict.seen_w,
            open_ms=self._open_ms,
            stayed_open_s=stayed_s,
            meter=self.plan.meter,
            others_moved=verdict.moved,
        )
        if verdict.why or await self._opened_too():
            raise await self._failure(
                f"{self.output} opened, but {'; '.join(verdict.why) or 'not alone'}", verdict.moved
            )
        self._say("watch", f"meter {self.plan.meter} fell by {verdict.seen_w} W of {expected_w} W; nothing else moved")

    def _still_open(self, state: SwitchState) -> bool:
        """Open as far as is known: an answer that is missing for a moment is not a movement."""
        if state.position is Position.UNKNOWN:
            self._unknown_ns = self._unknown_ns or self._now()
            return self._now() - self._unknown_ns < UNKNOWN_S * 1e9
        self._unknown_ns = 0
        return state.position is Position.OPEN

    async def _broken(self, port: Switch) -> Failed:
        """It did not stay open: what became of it, and by whom."""
        self._unbroken = False
        after_s = (self._now() - self._opened_ns) / 1e9
        within_s = self.hands.site.agent.timing.switch_confirm_s
        state = await self.hands.shedder.await_position(self.output, port, Position.CLOSED, within_s=within_s)
        actuator = self.hands.guards.gates.switches[self.output].actuator
        if state.position is not Position.CLOSED:
            return Failed(f"{self.output} did not stay open: {after_s:.1f} s after the opening it is {state.position}")
        if actuator in {"contactor_no", "contactor_nc"} and state.coil is (actuator == "contactor_no"):
            return Failed(f"{self.output}: its relay was written by another master {after_s:.1f} s after the opening")
        return Failed(
            f"{self.output} was closed again {after_s:.1f} s after the opening, not by us: re-closing automatics "
            f"(АПВ, АВР) or a person; it has to stay open for {self.plan.guard_s:g} s"
        )

    # closing --------------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        port, by_agent = self.hands.switches[self.output], self.plan.close == "auto"
        if by_agent:
            self._say("close", f"{self.output} is proven open. May it be closed?", "confirm_close")
        else:
            self._say("close", f"{self.output} may be closed by a person", "person")
        deadline = self._in(self.wish.patience_s)
        while True:
            await self._pause()
            state = await self._read(port)
            if state.position is Position.CLOSED:
                self.outcome.closed_by = "person" if self.foreign is None else "another master"
                break
            self._unbroken = self._still_open(state) and self._unbroken
            if by_agent and self.confirmed_by is not None:
                await self._close_ourselves(port, self.confirmed_by)
                break
            if self._now() > deadline:
                raise Stopped(f"{self.output} was not closed within {self.wish.patience_s} s")
        self.outcome.closed_ms = self.hands.clock.now_ms()

    async def _close_ourselves(self, port: Switch, who: str) -> None:
        guards, retest = self.hands.guards, self.wish.retest
        self._gate(guards.may_close(self.output, retest=retest, unbroken=self._unbroken))
        await self.hands.intend("commission_close", {"who": who}, self.priors)
        self._unbroken = self._unbroken and (await self._read(port)).position is Position.OPEN
        self._gate(guards.may_close(self.output, retest=retest, unbroken=self._unbroken))
        self._go_on()
        self._say("close", f"{self.output}: close, on the word of {who}")
        answer = await port.close()
        within_s = self.hands.site.agent.timing.switch_confirm_s
        state = await self.hands.shedder.await_position(self.output, port, Position.CLOSED, within_s=within_s)
        if state.position is not Position.CLOSED:
            raise Failed(
                f"{self.output} did not close: position {state.position} {within_s:g} s after the command "
                f"({answer.status} {answer.detail})".strip()
            )
        self.outcome.closed_by = "agent"

    async def _return(self) -> None:
        """Machines get their prior state, and the load has to come back."""
        self._say("return", f"{self.output} is closed; {len(self.priors)} machines wake")
        deadline = self._in(self.wish.return_s)
        lost = await self.hands.machines.put_back(self.priors, self.wish.return_s, self._held_up)
        self.priors = {name: self.priors[name] for name in lost}
        wanted_w = int(BACK_SHARE * (self.outcome.load_w or 0))
        point = self.plan.feeder or self.plan.meter
        while True:
            running = {m.id for m in self.hands.machines.running(self.hands.machines.behind(self.output))}
            power_w = self.hands.live.power(self.plan.feeder).value_w if self.plan.feeder else None
            back = power_w is None if self.plan.feeder is None else power_w is not None and power_w >= wanted_w
            if (back and self._awake <= running) or self._now() > deadline:
                break
            await self._pause()
        self.outcome.returned_w = power_w
        self.outcome.not_back = sorted({*lost, *(self._awake - running)})
        if self.outcome.not_back or not back:
            log.warning("load_not_back", output=self.output, point=point, machines=len(self.outcome.not_back))
        told = f"not back: {', '.join(self.outcome.not_back[:5])}" if self.outcome.not_back else "all machines are back"
        self._say("return", f"{point}: {power_w} W of {self.outcome.load_w} W before; {told}")

    async def _after_failure(self) -> None:
        """Nothing is closed. Machines wake only where their switch is closed, and nothing but a person stopped it."""
        self.stop_why = None
        state = await self.hands.switches[self.output].read()
        self.hands.live.put_switch(self.output, state)
        if self.priors and state.position is Position.CLOSED and self._held_up() is None:
            try:
                await self._return()
            except Stopped as stopped:
                self.outcome.why.append(str(stopped))
        self._say_left()

    def _say_left(self) -> None:
        state = self.hands.live.switches.get(self.output)
        if self._opened_ns and state is not None and state.position is not Position.CLOSED:
            self.outcome.why.append(f"{self.output} stays {state.position}: a person closes it once the cause is known")

    # small ----------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return self.hands.clock.mono_ns()

    def _in(self, seconds: float) -> int:
        return self._now() + int(seconds * 1e9)

    def _say(self, phase: str, text: str, waits: str | None = None) -> None:
        self.hands.say(phase, text, waits)

    async def _pause(self) -> None:
        await asyncio.sleep(LOOK_S)
        self._go_on()

    def _go_on(self) -> None:
        """Raises where a person, an order, a tag or САОН ends the test."""
        self._gate(self._held_up())

    def _held_up(self) -> str | None:
        return self.stop_why or self.hands.guards.may_work(retest=self.wish.retest)

    @staticmethod
    def _gate(why: str | None) -> None:
        if why is not None:
            raise Stopped(why)

    async def _read(self, port: Switch) -> SwitchState:
        state = await port.read()
        self.hands.live.put_switch(self.output, state)
        return state
