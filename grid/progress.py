"""A verified story in words: the steps of an order with their times, for the terminal and the desk."""

from __future__ import annotations

from collections.abc import Iterable

from grid.history import Word
from grid.story import Answer, Story
from grid.texts import Texts
from grid.words import completion, kilowatt, kilowatt_hours, local_time, permille, returned
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


def trial_text(trial: str, t: Texts) -> str:
    """Why nothing was moved, see :attr:`grid.story.Story.trial`."""
    names = {
        "shadow": t("shadow: nothing was moved"),
        "monitor": t("observes only: nothing was moved"),
        "drill": t("DRILL: nothing was moved"),
    }
    return names.get(trial, trial)


def story_state_text(story: Story, t: Texts) -> str | None:
    """The state by signed answers; what was only tried out is never called done or held."""
    if story.state is None:
        return None
    if story.trial is not None and story.state in {OrderState.DONE, OrderState.HOLDING}:
        return trial_text(story.trial, t)
    if story.sheds and story.state == OrderState.DONE and story.returned is not None:
        return t("ended, the load is back")
    return state_text(story.state, t)


def completion_text(story: Story, t: Texts) -> str | None:
    """The line to be read aloud, where there is something fulfilled to be read."""
    done = story.completed
    return None if done is None else completion(done.at, done.power_w, t)


def returned_text(story: Story, t: Texts) -> str | None:
    """That the load is back, with time and power."""
    back = story.returned
    return None if back is None else returned(back.at, back.power_w, t)


def report_text(story: Story, t: Texts) -> str | None:
    """The verdict of the site's signed report in one line; ``None`` while there is none."""
    report = story.report
    if report is None:
        return None
    verdicts = {
        "obeyed": t("obeyed"),
        "short": t("NOT OBEYED IN FULL"),
        "unknown": t("not known, too much is not measured"),
        "not_due": t("nothing was due"),
    }
    parts = [t("Report of the site: {verdict}", verdict=verdicts.get(report.verdict, report.verdict))]
    if report.hold_permille is not None:
        parts.append(t("target met in {share} of what was measured", share=permille(report.hold_permille, t)))
    if report.shortfall_wh:
        parts.append(t("above the target: {number} kWh", number=kilowatt_hours(report.shortfall_wh, t)))
    if report.missing_permille:
        parts.append(t("not measured: {share}", share=permille(report.missing_permille, t)))
    if report.excuses:
        parts.append(t("the site names: {causes}", causes=", ".join(excuse_text(e, t) for e in report.excuses)))
    return "; ".join(parts)


def excuse_text(code: str, t: Texts) -> str:
    """A cause that may excuse; one that nobody knows shows as it is."""
    names = {
        "not_delivered": t("delivered late"),
        "tag": t("output tagged"),
        "reservation": t("emergency reservation"),
        "unsafe_cooling": t("cooling down first"),
        "no_meter": t("not measured"),
        "local_override": t("local override"),
        "saon": t("locked by emergency automatics"),
        "not_commissioned": t("output not commissioned"),
    }
    return names.get(code, code)


def step_text(answer: Answer, t: Texts, trial: str | None = None) -> str:
    """One verified answer in one line, without its time."""
    only_tried = trial is not None and answer.state in {OrderState.DONE, OrderState.HOLDING}
    parts = [trial_text(trial, t) if only_tried and trial else state_text(answer.state, t)]
    if answer.code:
        parts.append(answer.code)
    if answer.power_w is not None:
        parts.append(t("load {power}", power=kilowatt(answer.power_w, t)))
    parts += [flag_text(flag, t) for flag in answer.flags]
    if answer.escalated:
        parts.append(t("escalated to {what}", what=", ".join(answer.escalated)))
    # The end of an order repeats the times of its beginning.
    if answer.state != OrderState.DONE:
        parts += _milestones(answer, t)
    if answer.text:
        parts.append(f"«{answer.text}»")
    return "; ".join(parts)


def _milestones(answer: Answer, t: Texts) -> list[str]:
    names = {
        "accepted": t("accepted after {ms} ms"),
        "first_output": t("first output after {ms} ms"),
        "readback": t("read back in {ms} ms"),
        "confirmed": t("meter confirmed after {ms} ms"),
    }
    known = [name for name in names if answer.ms.get(name) is not None]
    said = [names[name].replace("{ms}", str(answer.ms[name])) for name in known]
    return said + [f"{name} {value} ms" for name, value in sorted(answer.ms.items()) if name not in names and value]


def word_text(word: Word, t: Texts) -> str:
    """One verified word of a person about an order, without its time."""
    match word.kind:
        case "spoken":
            said = t("spoken by {given}, taken by {who}", given=word.given_by, who=word.who)
        case "spoken_on_site":
            said = t("entered on site: spoken by {given}, taken by {who}", given=word.given_by, who=word.who)
        case "acknowledged":
            said = t("acknowledged on site by {who}", who=word.who)
        case _:
            said = t("nobody on site has acknowledged it in time")
    parts = [said]
    if word.recording_no:
        parts.append(t("recording {number}", number=word.recording_no))
    if word.text:
        parts.append(f"«{word.text}»")
    return "; ".join(parts)


def history(story: Story, words: Iterable[Word], t: Texts) -> list[tuple[str, str, str]]:
    """(time, what, key) of all verified answers and words: one history under one id, oldest first."""
    rows = [(a.at, step_text(a, t, story.trial), a.kid) for a in story.answers]
    rows += [(w.at, word_text(w, t), w.kid) for w in words]
    return [(local_time(at), what, kid) for at, what, kid in sorted(rows, key=lambda row: row[0])]


def steps(story: Story, t: Texts) -> list[tuple[str, str, str]]:
    """(time, what, key) of every verified answer."""
    return [(local_time(a.at), step_text(a, t, story.trial), a.kid) for a in story.answers]
