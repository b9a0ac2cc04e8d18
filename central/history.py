"""One history of an order: posted, answered, spoken, acknowledged, by whoever said it, in order of time.

What the site signed and what a dispatcher signed are told apart; a record under a wrong key is told as such and proves
nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from central.dispatch import DELIVERY_MS, OrderView
from wire.errors import WireError
from wire.records import parse_line
from wire.registry import KeysDocument
from wire.spoken import open_note

KINDS = frozenset({"posted", "not_delivered", "spoken", "spoken_on_site", "acknowledged", "unacknowledged", "answer"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history. Times are ms."""

    at: int
    kind: str
    """``posted not_delivered spoken spoken_on_site acknowledged unacknowledged answer``."""
    signed: str | None
    """``site`` or ``desk``; null for what central itself saw."""
    verified: bool | None
    """Of a signed entry: by the register's key; null where it has none."""
    state: str | None = None
    who: str | None = None
    """Who took it or acknowledged it."""
    given_by: str | None = None
    recording_no: str | None = None
    text: str | None = None


def history(view: OrderView, keys: KeysDocument | None) -> list[Entry]:
    """Everything that is known to have happened with an order, oldest first."""
    found = [Entry(view.order.posted_at, "posted", None, None)]
    late_at = view.order.posted_at + DELIVERY_MS
    if view.not_delivered or (view.delivered_at is not None and view.delivered_at > late_at):
        found.append(Entry(late_at, "not_delivered", None, None))
    found += [
        Entry(a.at, "answer", "site", a.verified, state="received" if a.ty == "cmd_rx" else a.state, text=a.text)
        for a in view.answers
    ]
    found += [_note(note.envelope, keys) for note in view.notes]
    found += [_word(word.ev, word.at, word.verified, word.line) for word in view.words]
    return sorted(found, key=lambda entry: entry.at)


def as_dicts(entries: list[Entry]) -> list[dict[str, Any]]:
    """Plain data for the API."""
    return [asdict(entry) for entry in entries]


def _note(raw: bytes, keys: KeysDocument | None) -> Entry:
    note, envelope = open_note(raw)
    verified: bool | None = None
    if keys is not None:
        try:
            envelope.verify(keys.verify_keys())
            verified = True
        except WireError:
            verified = False
    return Entry(
        note.at,
        "spoken",
        "desk",
        verified,
        who=note.taken_by,
        given_by=note.given_by,
        recording_no=note.recording_no,
        text=note.text,
    )


def _word(ev: str, at: int, verified: bool | None, line: bytes) -> Entry:
    try:
        doc = parse_line(line)[1]
    except WireError:
        doc = {}
    found = doc.get("detail")
    detail: dict[str, Any] = found if isinstance(found, dict) else {}

    def text(name: str) -> str | None:
        value = detail.get(name)
        return value[:300] if isinstance(value, str) else None

    if ev == "spoken_order":
        spoken_at = detail.get("at")
        when = spoken_at if isinstance(spoken_at, int) and not isinstance(spoken_at, bool) else at
        return Entry(
            when,
            "spoken_on_site",
            "site",
            verified,
            who=text("who"),
            given_by=text("given_by"),
            recording_no=text("recording"),
            text=text("text"),
        )
    kind = "unacknowledged" if doc.get("now") == "overdue" else "acknowledged"
    return Entry(at, kind, "site", verified, who=text("who"))


def acknowledged(view: OrderView) -> bool:
    """Whether a person on site said that they know of the order."""
    return any(e.kind in {"acknowledged", "spoken_on_site"} and e.verified is not False for e in history(view, None))
