"""The steps of one order with their times: what is signed, what is only said, what is still to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from central.dispatch import OrderView
from wire.errors import WireError
from wire.records import parse_line
from wire.states import OrderState

S = OrderState
_RANK: dict[OrderState, str] = {
    S.VALIDATED: "accepted",
    S.SCHEDULED: "accepted",
    S.ARMED: "accepted",
    S.EXECUTING: "outputs",
    S.VERIFYING: "readback",
    S.HOLDING: "confirmed",
    S.RESTORING: "returning",
    S.DONE: "done",
}
ORDER = ("sent", "received", "accepted", "outputs", "readback", "confirmed", "returning", "done")
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
    found: dict[str, Step] = {"sent": Step("sent", view.order.posted_at)}
    refusal: Step | None = None
    entered: int | None = None
    for progress in view.progress:
        name = _RANK.get(progress.state)
        if progress.state in _REFUSALS:
            refusal = Step(progress.state.value, progress.at, False, progress.text or "", progress.power_w, True)
        elif name is not None and name not in found:
            found[name] = Step(name, progress.at, False, progress.text or "", progress.power_w)
    accepted = False
    for answer in view.answers:
        if answer.verified is False:
            continue
        if answer.ty == "cmd_rx":
            found.setdefault("received", Step("received", answer.at, True))
            entered = entered if entered is not None else answer.at
            continue
        try:
            state = OrderState(answer.state or "")
        except ValueError:
            continue
        if state in _REFUSALS:
            if not (state is S.REJECTED and accepted):
                text = " · ".join(part for part in (answer.code, answer.text) if part)
                refusal = Step(state.value, answer.at, True, text, answer.power_w, True)
            continue
        name = _RANK.get(state)
        if name is None:
            continue
        accepted = True
        there = found.get(name)
        if there is None or not there.signed:
            found[name] = Step(name, answer.at, True, answer.text or "", answer.power_w)
        for mark, step in (("first_output", "outputs"), ("readback", "readback"), ("confirmed", "confirmed")):
            after = _milestones(answer.line).get(mark)
            if isinstance(after, int) and entered is not None and not (step in found and found[step].signed):
                earlier = found.get(step)
                found[step] = Step(step, entered + after, True, earlier.text if earlier else "")
    if refusal is not None and refusal.name in {"failed", "restore_blocked"} and view.state is not None:
        refusal = refusal if view.state.value == refusal.name else None
    listed = [found.get(name, Step(name)) for name in ORDER]
    if refusal is None:
        return listed
    return [step for step in listed if step.reached] + [refusal]


def _milestones(line: bytes) -> dict[str, Any]:
    try:
        ms = parse_line(line)[1].get("ms")
    except WireError:
        return {}
    return ms if isinstance(ms, dict) else {}
