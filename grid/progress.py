"""A verified story in words: the steps of an order with their times, for the terminal and the desk."""

from __future__ import annotations

from grid.story import Answer, Story
from grid.texts import Texts
from grid.words import kilowatt, local_time
from wire.states import OrderState


def state_text(state: str, t: Texts) -> str:
    """The name of a state; one that nobody knows shows as it is."""
    names = {
        OrderState.RECEIVED.value: t("received at the site"),
        OrderState.VALIDATED.value: t("accepted"),
        OrderState.SCHEDULED.value: t("accepted, waits for its time"),
        OrderState.ARMED.value: t("accepted, ready to act"),
        OrderState.EXECUTING.value: t("acting"),
        OrderState.VERIFYING.value: t("acted, the meter is asked"),
        OrderState.HOLDING.value: t("confirmed by the meter, held"),
        OrderState.RESTORING.value: t("load is returning"),
        OrderState.DONE.value: t("done"),
        OrderState.REJECTED.value: t("REFUSED by the site"),
        OrderState.EXPIRED.value: t("expired"),
        OrderState.CANCELLED.value: t("cancelled"),
        OrderState.SUPERSEDED.value: t("replaced by another order"),
        OrderState.FAILED.value: t("NOT REACHED, what was shed stays off"),
        OrderState.RESTORE_BLOCKED.value: t("return of load is blocked"),
    }
    return names.get(state, state)


def flag_text(flag: str, t: Texts) -> str:
    """The name of a flag beside the state."""
    names = {
        "degraded": t("part of the plant does not answer"),
        "blind": t("no live meter proves it"),
        "orphaned": t("link to central lost"),
        "saon_lock": t("locked by emergency automatics"),
        "local_override": t("local override"),
        "clock_suspect": t("the site's clock is in doubt"),
        "drill": t("DRILL: nothing is switched"),
    }
    return names.get(flag, flag)


def step_text(answer: Answer, t: Texts) -> str:
    """One verified answer in one line, without its time."""
    parts = [state_text(answer.state, t)]
    if answer.code:
        parts.append(answer.code)
    if answer.power_w is not None:
        parts.append(t("load {power}", power=kilowatt(answer.power_w, t)))
    parts += [flag_text(flag, t) for flag in answer.flags]
    if answer.escalated:
        parts.append(t("escalated to {what}", what=", ".join(answer.escalated)))
    milestones = [f"{name} {value} ms" for name, value in sorted(answer.ms.items()) if value is not None]
    if milestones:
        parts.append(", ".join(milestones))
    if answer.text:
        parts.append(f"«{answer.text}»")
    return "; ".join(parts)


def steps(story: Story, t: Texts) -> list[tuple[str, str, str]]:
    """(time, what, key) of every verified answer."""
    return [(local_time(a.at), step_text(a, t), a.kid) for a in story.answers]
