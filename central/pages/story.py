"""The steps of one order with their times: what is signed, what is only said, what is still to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from central.dispatch import OrderView
from central.store.orders import Answer
from wire.errors import WireError
from wire.messages import Progress
from wire.orders import SHEDDING, parse_order
from wire.records import parse_line
from wire.states import OrderState, ended

S = OrderState
_STEPS: dict[OrderState, tuple[str, ...]] = {
    S.VALIDATED: ("accepted",),
    S.SCHEDULED: ("accepted",),
    S.ARMED: ("accepted",),
    S.EXECUTING: ("outputs",),
    S.VERIFYING: ("readback",),
    S.HOLDING: ("confirmed", "held"),
    S.RESTORING: ("returning",),
    S.DONE: ("done",),
}
ORDER = ("sent", "received", "accepted", "outputs", "readback", "confirmed", "held", "returning", "done")
_MILESTONES = {"first_output": "outputs", "readback": "readback", "confirmed": "confirmed"}
_PASSING = frozenset({"failed", "restore_blocked"})
"""Refusals that an order may leave again."""
_REFUSALS = frozenset({S.REJECTED, S.EXPIRED, S.CANCELLED, S.FAILED, S.RESTORE_BLOCKED, S.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Step:
    """One step; ``at`` null where it has not been reached."""

    name: str
    at: int | None = None
    signed: bool = False
    text: str = ""
    power_w: int | None = None
    bad: bool = False

    @property
    def reached(self) -> bool:
        """Whether it happened."""
        return self.at is not None


def steps(view: OrderView) -> list[Step]:
    """All steps of an order, in order; a refusal takes the place of what cannot come any more."""
    teller = _Teller({"sent": Step("sent", view.order.posted_at)})
    for progress in view.progress:
        teller.hear(progress)
    for answer in view.answers:
        if answer.verified is not False:
            teller.prove(answer)
    ends = teller.refusal
    if ends is not None and ends.name in _PASSING and (view.state is None or view.state.value != ends.name):
        ends = None
    # A release is answered by its acceptance; what follows is told under the order it is about.
    names = ORDER if view.order.action in SHEDDING else ("sent", "received", "accepted")
    listed = [teller.found.get(name, Step(name)) for name in ORDER if name in names or name in teller.found]
    return listed if ends is None else [step for step in listed if step.reached] + [ends]


@dataclass(slots=True)
class _Teller:
    """Collects steps; what is signed replaces what was only said."""

    found: dict[str, Step]
    refusal: Step | None = None
    entered: int | None = None
    accepted: bool = False

    def hear(self, progress: Progress) -> None:
        if progress.state in _REFUSALS:
            self.refusal = Step(progress.state.value, progress.at, False, progress.text or "", progress.power_w, True)
        for name in _STEPS.get(progress.state, ()):
            self.found.setdefault(name, Step(name, progress.at, False, progress.text or "", progress.power_w))

    def prove(self, answer: Answer) -> None:
        if answer.ty == "cmd_rx":
            if self.entered is None:
                self.entered = answer.at
                self.found["received"] = Step("received", answer.at, True)
            return
        try:
            state = OrderState(answer.state or "")
        except ValueError:
            return
        if state in _REFUSALS:
            if not (state is S.REJECTED and self.accepted):
                text = " · ".join(part for part in (answer.code, answer.text) if part)
                self.refusal = Step(state.value, answer.at, True, text, answer.power_w, True)
            return
        self.accepted = True
        for name in _STEPS.get(state, ()):
            self._sign(Step(name, answer.at, True, answer.text or "", answer.power_w))
        for mark, name in _MILESTONES.items():
            after = _milestones(answer.line).get(mark)
            if isinstance(after, int) and self.entered is not None:
                there = self.found.get(name)
                self._sign(Step(name, self.entered + after, True, there.text if there else ""))

    def _sign(self, step: Step) -> None:
        there = self.found.get(step.name)
        if there is None or not there.signed:
            self.found[step.name] = step


@dataclass(frozen=True, slots=True)
class Notices:
    """What stands beside an order's state now."""

    flags: tuple[str, ...] = ()
    """Flags of the newest signed answer that names flags."""
    said_flags: tuple[str, ...] = ()
    """Further flags of newer, unsigned progress."""
    waiting_for: tuple[str, ...] = ()
    """Switches that a person has to close; unsigned."""
    trial: str | None = None
    """Why nothing was moved: ``drill``, ``shadow``, ``monitor``."""


def notices(view: OrderView) -> Notices:
    """Flags, switches that wait for a person, and whether anything was moved at all."""
    signed: tuple[str, ...] = ()
    at = 0
    modes: set[str] = set()
    for answer in view.answers:
        if answer.verified is False:
            continue
        doc = _document(answer.line)
        if answer.ty == "cmd_ack" and answer.state != S.REJECTED and not modes:
            modes = {str(doc.get("agent_mode")), str(doc.get("order_mode"))}
        if answer.ty == "cmd_eff":
            listed = doc.get("flags")
            signed, at = tuple(str(f) for f in listed[:20]) if isinstance(listed, list) else (), answer.at
    newest = view.progress[-1] if view.progress else None
    over = view.state is not None and ended(view.state)
    if newest is not None and (over or newest.at < at):
        newest = None
    said = tuple(flag.value for flag in newest.flags if flag not in signed) if newest else ()
    drill = bool({"drill"} & {*modes, *signed, *said})
    trial = "drill" if drill else next((m for m in ("shadow", "monitor") if m in modes), None)
    waiting = newest.waiting_for if newest else ()
    return Notices(_without_drill(signed), _without_drill(said), waiting, trial)


def completion(view: OrderView) -> tuple[int, int | None] | None:
    """(when, W) of the signed answer to be read aloud as fulfilment; ``None`` where nothing was proven fulfilled.

    For an order that sheds it is the meter's confirmation, while no later signed answer contradicts it; for any other
    order its end. Only records whose signature holds count, and only of an agent that was armed; never of a drill.
    """
    proven = [(a, _document(a.line)) for a in view.answers if a.verified is True]
    accepted = next((d for a, d in proven if a.ty == "cmd_ack" and a.state != S.REJECTED), None)
    if accepted is None or accepted.get("agent_mode") != "armed" or accepted.get("order_mode") == "drill":
        return None
    effects = [a for a, _ in proven if a.ty == "cmd_eff"]
    if view.order.action not in SHEDDING:
        done = next((a for a in reversed(effects) if a.state == S.DONE), None)
        return None if done is None else (done.at, done.power_w)
    verdicts = [a for a in effects if a.state in {S.HOLDING, S.FAILED}]
    if not verdicts or verdicts[-1].state == S.FAILED:
        return None
    last = verdicts[-1]
    if last.power_w is not None and last.target_w is not None and last.power_w > last.target_w + _tolerance_w(view):
        return None
    first = next(a for a in verdicts if a.state == S.HOLDING)
    return first.at, first.power_w


def _tolerance_w(view: OrderView) -> int:
    try:
        return parse_order(view.order.raw).order.tolerance_w
    except WireError:
        return 0


def _without_drill(flags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(flag for flag in flags if flag != "drill")


def _document(line: bytes) -> dict[str, Any]:
    try:
        return parse_line(line)[1]
    except WireError:
        return {}


def _milestones(line: bytes) -> dict[str, Any]:
    ms = _document(line).get("ms")
    return ms if isinstance(ms, dict) else {}
