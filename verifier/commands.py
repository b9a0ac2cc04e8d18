"""Orders in evidence: every answer has its order, every order is what its record says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from verifier.canonical import Object, read_canonical
from verifier.errors import CommandError, InputLimit
from verifier.keys import Envelope, Key, decode_base64, read_envelope
from verifier.notes import read_note
from verifier.obedience import Curve, Duty
from verifier.records import COMMON, Record
from verifier.shown import Shown

ORDER_TYPE = "application/vnd.tizgin.order.v1+json"
MAX_ORDER = 32_768
REFUSED = frozenset({"rejected", "expired"})
LOCAL_S, DAY_S = 18_000, 86_400
_ROOT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Claim:
    """A report of an order, and what it was made from; the meter's slots are still lacking."""

    where: str
    epoch: str
    at: int
    stated: Object
    duty: Duty
    curve: Curve
    taken: frozenset[int]
    """Days since 1970 in UTC+5 with traces of other orders."""

    @property
    def point(self) -> str:
        """Metering or virtual point that the order is judged by."""
        return self.curve.point or ""


class CommandStream:
    """Walks one ``cmd`` stream. Findings go to ``errors``; ``doubts`` are what a reader should ask about."""

    def __init__(self, site: str, epoch: str, issuers: Mapping[str, Key]) -> None:
        self._site, self._epoch, self._issuers = site, epoch, issuers
        self._orders: dict[str, str | None] = {}
        """Order id → why it must not have been accepted; ``None`` where it may."""
        self._nameless = False
        self._unknown: set[str] = set()
        self.errors: list[CommandError] = []
        self.doubts: list[str] = []
        self._received_as: dict[str, tuple[Object, int]] = {}
        self._duties: dict[str, Duty] = {}
        self._curves: dict[str, Curve] = {}
        self._days: dict[int, set[str]] = {}
        self.claims: list[Claim] = []
        self.shown: list[Shown] = []
        self.orders = 0
        self.answers = 0

    def feed(self, records: Iterable[Record]) -> None:
        """All records of the stream, in their order."""
        for record in records:
            try:
                if record.ty == "cmd_rx":
                    self._received(record)
                elif record.ty in {"cmd_ack", "cmd_eff"}:
                    self._answered(record)
                elif record.ty == "cmd_trace":
                    self._traced(record)
                elif record.ty == "cmd_report":
                    self._reported(record)
            except CommandError as error:
                self.errors.append(error)

    def _received(self, record: Record) -> None:
        self.orders += 1
        order_id, raw = record.doc.get("id"), record.doc.get("raw")
        if order_id is None:
            # Junk is evidence too; it is kept as it came and promises nothing.
            self._nameless = True
            return
        if not isinstance(order_id, str) or not (raw is None or isinstance(raw, str)):
            raise CommandError(f"{record.where}: id and raw of an order are texts")
        why = "its text was not kept" if raw is None else None
        if raw is not None:
            try:
                envelope = read_envelope(decode_base64(raw, MAX_ORDER), ORDER_TYPE, max_bytes=MAX_ORDER)
                order = read_canonical(envelope.payload, max_bytes=MAX_ORDER)
                why = self._judge(record, envelope, order)
                self._note_of(record, order)
                if why is None and type(record.doc.get("rx")) is int:
                    self._received_as[order_id] = order, record.doc["rx"]
            except CommandError:
                raise
            except (ValueError, InputLimit) as error:
                # What strangers sent is kept verbatim, hostile or not; it says nothing about the bundle.
                why = f"it does not decode: {error}"
        # A first good copy is not made worse by a later bad one under the same id, which the site refuses.
        if self._orders.get(order_id, "") is not None:
            self._orders[order_id] = why

    def _note_of(self, record: Record, order: Object) -> None:
        """The checkpoint that an order names; whose note it is shows when it is held against the log."""
        seen = order.get("seen")
        if isinstance(seen, str):
            try:
                note = read_note(seen.encode())
            except (ValueError, InputLimit):
                return  # a stranger's order may hold anything
            self.shown.append(Shown(f"{record.where}: the checkpoint in the order", note.size, note=note))

    def _head_of(self, record: Record) -> None:
        """The checkpoint that an answer names."""
        head = record.doc.get("cp")
        if head is None:
            return
        if not isinstance(head, dict) or set(head) != {"s", "r"} or type(head["s"]) is not int or head["s"] < 1:
            raise CommandError(f"{record.where}: cp is size and root of a checkpoint")
        if not isinstance(head["r"], str) or not _ROOT.fullmatch(head["r"]):
            raise CommandError(f"{record.where}: the root of cp is no SHA-256 in hex")
        self.shown.append(Shown(f"{record.where}: cp", head["s"], root=bytes.fromhex(head["r"])))

    def _judge(self, record: Record, envelope: Envelope, order: Object) -> str | None:
        if order.get("id") != record.doc["id"]:
            raise CommandError(f"{record.where}: holds order {str(order.get('id'))[:40]}, named {record.doc['id']}")
        if record.doc.get("digest") != hashlib.sha256(envelope.payload).hexdigest():
            raise CommandError(f"{record.where}: the digest is not that of the order it holds")
        if order.get("site") != self._site or order.get("epoch") != self._epoch:
            return f"it is for {str(order.get('site'))[:41]} {str(order.get('epoch'))[:20]}"
        try:
            if not envelope.good_signers(self._issuers):
                # The register may have dropped an old key since; a reader should ask, the evidence is not broken.
                self._unknown.add(str(record.doc["id"]))
        except ValueError as error:
            return str(error)
        return None

    def _answered(self, record: Record) -> None:
        self.answers += 1
        self._head_of(record)
        order_id, state = record.doc.get("id"), record.doc.get("state")
        if order_id is None:
            if not self._nameless or not isinstance(state, str) or state not in REFUSED:
                raise CommandError(f"{record.where}: answers no order that was received")
            return
        if not isinstance(order_id, str) or not isinstance(state, str) or order_id not in self._orders:
            raise CommandError(f"{record.where}: answers order {str(order_id)[:40]}, which was not received before")
        why = self._orders[order_id]
        if why is not None and state not in REFUSED:
            raise CommandError(f"{record.where}: order {order_id} was taken ({str(state)[:20]}), although {why}")
        if order_id in self._unknown and state not in REFUSED:
            self._unknown.discard(order_id)
            self.doubts.append(f"order {order_id} was taken, and no key of this register signed it")
        if record.ty == "cmd_ack" and state == "validated" and record.doc.get("dup") is not True:
            before, target = record.doc.get("before_w"), record.doc.get("target_w")
            if order_id in self._received_as and all(w is None or type(w) is int for w in (before, target)):
                duty = Duty(*self._received_as[order_id], before, target)
                if duty.order.get("action") == "schedule":  # another target every hour: no single one is judged
                    duty = replace(duty, target=None)
                self._duties.setdefault(order_id, duty)

    def _order_of(self, record: Record) -> str:
        order_id = record.doc.get("id")
        if not isinstance(order_id, str) or order_id not in self._duties:
            raise CommandError(
                f"{record.where}: a {record.ty} of order {str(order_id)[:40]}, which was not taken before"
            )
        if any(claim.stated["id"] == order_id for claim in self.claims):
            raise CommandError(f"{record.where}: a {record.ty} of order {order_id} after its report")
        return order_id

    def _traced(self, record: Record) -> None:
        order_id = self._order_of(record)
        try:
            self._curves.setdefault(order_id, Curve()).take(record.doc)
        except ValueError as error:
            raise CommandError(f"{record.where}: {error}") from None
        self._days.setdefault((record.at // 1000 + LOCAL_S) // DAY_S, set()).add(order_id)

    def _reported(self, record: Record) -> None:
        order_id = self._order_of(record)
        stated = {name: value for name, value in record.doc.items() if name not in COMMON}
        taken = frozenset(day for day, orders in self._days.items() if orders - {order_id})
        curve = self._curves.pop(order_id, None)
        if curve is None:
            raise CommandError(f"{record.where}: a report of order {order_id}, of which there is no trace")
        self.claims.append(Claim(record.where, self._epoch, record.at, stated, self._duties[order_id], curve, taken))
