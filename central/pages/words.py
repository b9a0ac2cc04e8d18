"""An order's history in words: calls, acknowledgements, and the line that is read aloud when it is fulfilled."""

from __future__ import annotations

from central.dispatch import OrderView
from central.history import Entry, history
from central.pages.call import hour, spoken_power
from central.pages.format import clock
from central.pages.story import completion
from central.pages.texts import Texts
from wire.registry import KeysDocument

SPOKEN = frozenset({"spoken", "spoken_on_site", "acknowledged", "unacknowledged", "not_delivered"})


def completion_line(view: OrderView, texts: Texts) -> str | None:
    """«Выполнено 18:12, нагрузка 38 МВт», where the site's signature proves it."""
    done = completion(view)
    if done is None:
        return None
    at, power_w = done
    if power_w is None:
        return texts("Done {time}, load not measured", time=hour(at))
    return texts("Done {time}, load {power}", time=hour(at), power=spoken_power(power_w, texts))


def word_rows(view: OrderView, keys: KeysDocument | None, texts: Texts) -> list[tuple[str, str]]:
    """(kind, words) of what people said about an order, oldest first. Answers are the steps, shown beside them."""
    return [(e.kind, f"{clock(e.at)} · {_words(e, texts)}") for e in history(view, keys) if e.kind in SPOKEN]


def _words(entry: Entry, texts: Texts) -> str:
    match entry.kind:
        case "not_delivered":
            said = texts("not delivered within 10 s: a person has to call")
        case "spoken":
            said = texts("spoken by {given}, taken by {who}", given=entry.given_by, who=entry.who)
        case "spoken_on_site":
            said = texts("entered on site: spoken by {given}, taken by {who}", given=entry.given_by, who=entry.who)
        case "acknowledged":
            said = texts("acknowledged on site by {who}", who=entry.who)
        case _:
            said = texts("nobody on site has acknowledged it in time")
    parts = [said]
    if entry.recording_no:
        parts.append(texts("recording {number}", number=entry.recording_no))
    if entry.text:
        parts.append(f"«{entry.text}»")
    if entry.signed == "desk":
        parts.append(texts("signed by the dispatcher"))
    elif entry.signed == "site":
        parts.append(texts("signed by the site"))
    if entry.signed is not None and entry.verified is not True:
        words = texts("signature is wrong") if entry.verified is False else texts("signature not checked yet")
        parts.append(words)
    return " · ".join(parts)
