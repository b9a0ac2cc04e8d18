"""The desk itself, without pages: drafts, signed orders, what central says, what is proven."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid.call import sign_note
from grid.claims import integer_of, plain, text_of, texts_of
from grid.client import CentralClient
from grid.errors import CentralRefused, ComposeError, GridError
from grid.heads import Heads, Verdict
from grid.history import Word, verified_words
from grid.ordering import fetch_order, new_order
from grid.sequence import Sequence
from grid.story import Refused, Story, tell
from wire.dsse import ORDER_TYPE, seal
from wire.errors import WireError
from wire.keys import SigningKey, b64
from wire.orders import Order, SignedOrder, parse_order, uuid7
from wire.registry import Issuer, KeysDocument

MAX_KEPT = 200
DRAFT_LIFE_MS = 120_000
"""What is signed must be what was meant a moment ago: after two minutes an order is composed again."""
STALE_MS = 15_000


@dataclass(frozen=True, slots=True)
class SiteLine:
    """A site of the register with what central claims about it; unknown is ``None``."""

    id: str
    names: Mapping[str, str]
    power_w: int | None
    age_ms: int | None
    stale: bool
    limit_w: int | None
    mode: str | None
    presence: str | None
    phone: str | None
    simulation: bool
    other_epoch: str | None
    """Epoch that central reports where it differs from the register's newest."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What somebody suggests, as form fields."""

    site: str
    fields: Mapping[str, str]
    note: str


@dataclass(frozen=True, slots=True)
class Sent:
    """An order signed here."""

    signed: SignedOrder
    signed_ms: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The newest unsigned progress, as central relays it: for the eye, never for the proof."""

    state: str | None
    at: int | None
    power_w: int | None
    flags: tuple[str, ...]
    waiting_for: tuple[str, ...]
    """Switches that a person has to close."""
    text: str


@dataclass(frozen=True, slots=True)
class OrderPage:
    """Everything about one order."""

    signed: SignedOrder
    story: Story
    mine: bool
    signers: tuple[str, ...]
    bad_signature: str | None
    not_delivered: bool
    phone: str | None
    claim: Claim | None
    error: str | None
    words: tuple[Word, ...] = ()
    """What people said about it, verified."""
    note_error: str | None = None
    """Why a note that was signed here is not at central."""
    log: Verdict | None = None
    """What the site says of its log against everything seen of it."""
    log_size: int = 0
    site_name: str | None = None
    """Dispatch name of the site in the desk's language, as central has it."""


class Desk:
    """One dispatcher at work. Calls to central block; the pages call from threads."""

    def __init__(
        self,
        *,
        client: CentralClient,
        signer: SigningKey,
        key_file: Path,
        register: KeysDocument,
        now_ms: Callable[[], int],
    ) -> None:
        self.client, self.register, self.now_ms = client, register, now_ms
        self._signer = signer
        self._sequence = Sequence(key_file, signer.kid)
        self._heads = Heads(key_file)
        self._drafts: OrderedDict[str, Order] = OrderedDict()
        self._sent: OrderedDict[str, Sent] = OrderedDict()
        self._notes: OrderedDict[bytes, tuple[str, str | None]] = OrderedDict()
        """Note signed here → (order, why central has not got it; ``None`` once it has)."""
        self._names: dict[str, Mapping[str, str]] = {}
        """Names of sites as central last gave them: known also when it does not answer."""
        self.language = "kk"

    @property
    def kid(self) -> str:
        """The signer's key."""
        return self._signer.kid

    @property
    def issuer(self) -> Issuer | None:
        """What the register lets this key order."""
        return self.register.issuer(self._signer.kid)

    def sites(self) -> tuple[list[SiteLine], str | None]:
        """Sites of the register, and why central says nothing about them, if so."""
        error, claims = None, {}
        try:
            claims = {str(row.get("id")): row for row in self.client.sites()}
        except GridError as failure:
            error = str(failure)
        lines = [self._site(entry.id, claims.get(entry.id, {})) for entry in self.register.sites]
        self._names |= {line.id: line.names for line in lines if line.names}
        return lines, error

    def _site(self, site: str, row: Mapping[str, Any]) -> SiteLine:
        entry = self.register.site(site)
        age = integer_of(row.get("age_ms"))
        names = row.get("name")
        epoch = text_of(row.get("epoch"))
        epochs = {e.epoch for e in entry.epochs} if entry else set()
        return SiteLine(
            id=site,
            names={k: plain(v, 120) for k, v in names.items() if isinstance(v, str)} if isinstance(names, dict) else {},
            power_w=integer_of(row.get("power_w")),
            age_ms=age,
            stale=age is None or age > STALE_MS or text_of(row.get("freshness", "fresh")) not in {"fresh", "live"},
            limit_w=integer_of(row.get("limit_w")),
            mode=text_of(row.get("mode")),
            presence=text_of(row.get("presence")),
            phone=text_of(row.get("phone")),
            simulation=bool(entry and entry.simulation),
            other_epoch=epoch if epoch is not None and epoch not in epochs else None,
        )

    def proposals(self) -> list[Proposal]:
        """Suggestions at central, decoded; what cannot be decoded is left out."""
        try:
            rows = self.client.proposals()
        except GridError:
            return []
        found: list[Proposal] = []
        for row in rows[:50]:
            site, action, minutes = text_of(row.get("site")), text_of(row.get("action")), integer_of(row.get("minutes"))
            if site is None or self.register.site(site) is None or action not in {"limit", "reduce", "stop"}:
                continue
            fields = {"site": site, "action": action}
            for watt, kilowatt in (("limit_w", "limit_kw"), ("reduce_w", "reduce_kw")):
                value = integer_of(row.get(watt))
                if value is not None and value >= 0:
                    fields[kilowatt] = f"{value // 1000}.{value % 1000:03d}".rstrip("0").rstrip(".")
            if minutes is not None:
                fields["hold_minutes"] = str(minutes)
            found.append(Proposal(site, fields, text_of(row.get("note")) or ""))
        return found

    def compose(self, fields: Mapping[str, str]) -> str:
        """A draft out of a form; returns its id.

        Raises:
            ComposeError: the fields make no order.
            GridError: its number cannot be kept.
        """
        order = new_order(
            dict(fields),
            register=self.register,
            sequence=self._sequence,
            now_ms=self.now_ms(),
            heads=self._heads,
            central=self.client,
        )
        draft = uuid7(self.now_ms())
        self._drafts[draft] = order
        while len(self._drafts) > MAX_KEPT:
            self._drafts.popitem(last=False)
        return draft

    def draft(self, draft: str) -> Order | None:
        """The order of a draft."""
        return self._drafts.get(draft)

    def sign(self, draft: str) -> str:
        """Sign a draft exactly as it was shown, and post it. Returns the order's id.

        Raises:
            ComposeError: no such draft, or it is too old.
        """
        order = self._drafts.pop(draft, None)
        if order is None:
            raise ComposeError("this draft is gone: it was signed, or the desk was restarted; compose it again")
        if self.now_ms() - order.issued_at > DRAFT_LIFE_MS:
            raise ComposeError("this draft is older than two minutes; compose it again")
        signed = parse_order(seal(ORDER_TYPE, order.encode(), self._signer).encode())
        # Kept before it is posted: if central does not answer, the order may still have gone out.
        self._sent[order.id] = Sent(signed, self.now_ms(), None)
        while len(self._sent) > MAX_KEPT:
            self._sent.popitem(last=False)
        self.post(order.id)
        return order.id

    def post(self, order_id: str) -> None:
        """Post (again) the same bytes of an order signed here."""
        sent = self._sent[order_id]
        error = None
        try:
            self.client.post_order(sent.signed.raw)
        except GridError as failure:
            error = str(failure)
        self._sent[order_id] = Sent(sent.signed, sent.signed_ms, error)

    def note(self, order_id: str, fields: Mapping[str, str]) -> None:
        """Sign a note that an order was spoken, and post it.

        Raises:
            ComposeError: a field that cannot be.
            GridError: the order is not known.
        """
        order = self.order(order_id).signed.order
        raw = sign_note(
            order,
            self._signer,
            given_by=fields.get("given_by", ""),
            taken_by=fields.get("taken_by", ""),
            at=fields.get("at", ""),
            recording_no=fields.get("recording_no", ""),
            text=fields.get("text", ""),
            now_ms=self.now_ms(),
        )
        self._notes[raw] = (order.id, None)  # kept before it is posted: what was said stays said
        while len(self._notes) > MAX_KEPT:
            self._notes.popitem(last=False)
        self.post_notes(order.id)

    def post_notes(self, order_id: str) -> None:
        """Post (again) what was noted here of an order."""
        for raw, (order, _) in list(self._notes.items()):
            if order == order_id:
                error = None
                try:
                    self.client.post_spoken(order_id, raw)
                except GridError as failure:
                    error = str(failure)
                self._notes[raw] = (order, error)

    def release_fields(self, page: OrderPage) -> dict[str, str]:
        """Fields of a release of an order, which returns in the order's own steps."""
        order = page.signed.order
        return {"site": order.site, "epoch": order.epoch, "action": "release", "target": order.id}

    def orders(self) -> list[tuple[str, str, str, bool, bool]]:
        """(id, site, action, mine, drill) of recent orders: signed here first, then others that central carries."""
        signed = [s.signed.order for s in self._sent.values()]
        own = [(o.id, o.site, o.action, True, o.mode == "drill") for o in signed]
        try:
            rows = self.client.orders(limit=20)
        except GridError:
            rows = []
        others = [
            (
                order_id,
                text_of(r.get("site"), 41) or "?",
                text_of(r.get("action"), 20) or "?",
                False,
                r.get("mode") == "drill",
            )
            for r in rows
            if (order_id := text_of(r.get("id"), 36)) and order_id not in self._sent
        ]
        return [*reversed(own), *others]

    def order(self, order_id: str) -> OrderPage:
        """One order with everything that is proven about it.

        Raises:
            GridError: not known here, and central cannot show it.
        """
        sent = self._sent.get(order_id)
        error = sent.error if sent else None
        doc: Mapping[str, Any] = {}
        try:
            doc = self.client.order(order_id)
        except CentralRefused as failure:
            error = error or str(failure)
        except GridError as failure:
            error = str(failure)
        if sent is None and not doc:
            raise GridError(error or f"order {order_id[:36]} is not known")
        signed = sent.signed if sent else fetch_order(_Once(doc), order_id)[0]
        lines = doc.get("answers")
        story = tell(signed, lines if isinstance(lines, list) else [], self.register)
        own = {raw: error for raw, (order, error) in self._notes.items() if order == order_id}
        notes = [b64(raw) for raw in own]
        words, refused = verified_words(
            signed, [*notes, *_listed(doc.get("notes"))], _listed(doc.get("words")), self.register
        )
        story.refused.extend(refused)
        told = [answer.head for answer in story.answers if answer.head is not None]
        log: Verdict | None = None
        try:
            log = self._heads.compare(signed.order.site, signed.order.epoch, told, self.register, self.client)
        except GridError as failure:
            story.refused.append(Refused("", str(failure)))
        since = sent.signed_ms if sent else signed.order.issued_at
        signers, bad = self._signers(signed)
        return OrderPage(
            signed=signed,
            story=story,
            mine=sent is not None,
            signers=signers,
            bad_signature=bad,
            not_delivered=story.not_delivered(signed_ms=since, now_ms=self.now_ms()),
            phone=text_of(doc.get("phone")),
            claim=_newest_claim(doc.get("progress")),
            error=error if story.received is None else None,
            words=tuple(words),
            log=log,
            log_size=max((head.size for head in told), default=0),
            site_name=self._site_name(signed.order.site),
            note_error=next((why for why in own.values() if why is not None), None),
        )

    def _site_name(self, site: str) -> str | None:
        names = self._names.get(site, {})
        return names.get(self.language) or next(iter(names.values()), None)

    def _signers(self, signed: SignedOrder) -> tuple[tuple[str, ...], str | None]:
        try:
            return signed.envelope.verify(self.register.verify_keys()), None
        except WireError as error:
            return tuple(kid for kid, _ in signed.envelope.signatures), str(error)


class _Once:
    """An order document that was fetched already, for :func:`grid.ordering.fetch_order`."""

    def __init__(self, doc: Mapping[str, Any]) -> None:
        self._doc = dict(doc)

    def order(self, order_id: str, /) -> dict[str, Any]:
        """The document, whatever is asked for: the caller compares the id of what is inside."""
        del order_id
        return self._doc


def _newest_claim(rows: Any) -> Claim | None:
    last = rows[-1] if isinstance(rows, list) and rows else None
    if not isinstance(last, dict):
        return None
    return Claim(
        state=text_of(last.get("state")),
        at=integer_of(last.get("at")),
        power_w=integer_of(last.get("power_w")),
        flags=texts_of(last.get("flags")),
        waiting_for=texts_of(last.get("waiting_for")),
        text=text_of(last.get("text")) or "",
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
