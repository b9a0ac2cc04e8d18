"""What people said about an order: dispatchers' notes of calls and the site's own words, each verified by its key.

Central carries both and can leave them out; it cannot make them up. What does not verify is told and does not count.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from grid.story import MAX_LINES, Refused
from wire.errors import BadRecord, WireError
from wire.names import origin
from wire.orders import SignedOrder
from wire.records import parse_line
from wire.registry import KeysDocument
from wire.spoken import open_note, signer

KINDS = {"order_ack": "acknowledged", "spoken_order": "spoken_on_site"}
MAX_NOTES = 50


@dataclass(frozen=True, slots=True)
class Word:
    """One verified word. ``kind``: ``spoken acknowledged unacknowledged spoken_on_site``."""

    at: int
    kind: str
    kid: str
    who: str
    given_by: str = ""
    recording_no: str = ""
    text: str = ""


def verified_words(
    signed: SignedOrder, notes: Iterable[object], lines: Iterable[object], register: KeysDocument
) -> tuple[list[Word], list[Refused]]:
    """Words that count, oldest first, and what does not.

    Args:
        signed: the order as the dispatcher signed it.
        notes: base64 of signed notes.
        lines: record lines of the site as text.
        register: the register, verified with the registrar's key.
    """
    found: list[Word] = []
    refused: list[Refused] = []
    for count, note in enumerate(notes):
        if count >= MAX_NOTES:
            refused.append(Refused("", f"more than {MAX_NOTES} notes; the rest was not looked at"))
            break
        try:
            found.append(_note(note, signed, register))
        except WireError as error:
            refused.append(Refused(str(note)[:120], str(error)))
    for count, line in enumerate(lines):
        if count >= MAX_LINES:
            refused.append(Refused("", f"more than {MAX_LINES} lines; the rest was not looked at"))
            break
        try:
            found.append(_line(line, signed, register))
        except WireError as error:
            refused.append(Refused(str(line)[:120], str(error)))
    return sorted(set(found), key=lambda word: (word.at, word.kind)), refused


def _note(note: object, signed: SignedOrder, register: KeysDocument) -> Word:
    if not isinstance(note, str):
        raise BadRecord(f"a note is a JSON {type(note).__name__}, expected base64 text")
    try:
        raw = base64.b64decode(note, validate=True)
    except (binascii.Error, ValueError):
        raise BadRecord("a note is not base64") from None
    said, envelope = open_note(raw)
    issuer = signer(said, envelope, register)
    if (said.order, said.site) != (signed.order.id, signed.order.site):
        raise BadRecord(f"a note of order {said.order} at {said.site}, not of this one")
    return Word(said.at, "spoken", issuer.kid, said.taken_by, said.given_by, said.recording_no or "", said.text)


def _line(text: object, signed: SignedOrder, register: KeysDocument) -> Word:
    order = signed.order
    if not isinstance(text, str):
        raise BadRecord(f"a word of the site is a JSON {type(text).__name__}, expected a record line")
    line, doc = parse_line(text.encode("utf-8", "surrogatepass").rstrip(b"\n"))
    key = register.record_keys(order.site).get(order.epoch, {}).get(line.kid)
    if key is None:
        raise BadRecord(f"signed by key {line.kid}, which the register does not name for {order.site} {order.epoch}")
    if not line.verified_by(key):
        raise BadRecord(f"the signature of key {line.kid} does not verify")
    kind = KINDS.get(str(doc.get("ev")))
    if doc["log"] != origin(order.site, order.epoch) or doc["st"] != "site" or doc["ty"] != "event" or kind is None:
        raise BadRecord(f"a {doc['ty']} record of {str(doc['log'])[:80]}/{doc['st']}, expected a word of the site")
    if doc.get("obj") != order.id:
        raise BadRecord(f"speaks of order {str(doc.get('obj'))[:40]}, not of this one")
    seen = doc.get("detail")
    detail: dict[str, Any] = seen if isinstance(seen, dict) else {}

    def said(name: str) -> str:
        value = detail.get(name)
        return value[:300] if isinstance(value, str) else ""

    if kind == "acknowledged":
        kind = "unacknowledged" if doc.get("now") == "overdue" else kind
        return Word(int(doc["at"]), kind, line.kid, said("who"))
    spoken_at = detail.get("at")
    at = spoken_at if isinstance(spoken_at, int) and not isinstance(spoken_at, bool) else int(doc["at"])
    return Word(at, kind, line.kid, said("who"), said("given_by"), said("recording"), said("text"))
