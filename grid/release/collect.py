"""The live orders of a plan as central shows them, each proven before it may be named in a release.

Central's list is a claim. An order counts as the plan's where the register's keys say so: signed by a gateway alone,
under a mandate of two persons that names the plan. It counts as live where the site's own signed answers say so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from grid.claims import plain, text_of, texts_of
from grid.errors import CentralUnreachable, GridError
from grid.ordering import current_epoch, fetch_order
from grid.story import Answer, Story, tell
from wire.errors import WireError
from wire.orders import SHEDDING, SignedOrder
from wire.powers import open_mandate
from wire.registry import KeysDocument, RegisteredSite
from wire.states import Flag, OrderState

LISTED = 50
"""Newest orders of a site that are looked at."""
MAX_CHAIN = 100
ENDED = frozenset(
    {OrderState.DONE, OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED, OrderState.SUPERSEDED}
)
RETURNING = frozenset({OrderState.RESTORING, OrderState.RESTORE_BLOCKED})


class Central(Protocol):
    """What giving back needs of central: claims and a carrier."""

    def sites(self) -> list[dict[str, Any]]:
        """All sites."""
        ...

    def orders(self, site: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Newest orders of a site."""
        ...

    def order(self, order_id: str, /) -> dict[str, Any]:
        """An order with its signed answers."""
        ...

    def post_order(self, envelope: bytes, /) -> dict[str, Any]:
        """Carry a signed order."""
        ...

    def checkpoint(self, site: str, epoch: str, size: int | None = None, /) -> str | None:
        """Text of a checkpoint of a site's log."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """An order of the plan that keeps load off, by the site's own signed word."""

    site: RegisteredSite
    signed: SignedOrder
    off_w: int | None
    """What it and the orders of the plan before it took off, as the site signed; ``None`` is unknown."""

    @property
    def id(self) -> str:
        """The order's id."""
        return self.signed.order.id


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A site, or one order of it, for which no release is made."""

    site: str
    order: str | None
    code: str
    why: str
    held: bool = True
    """Load of the plan may still be off there, or something is wrong: somebody has to look."""


@dataclass(slots=True)
class Review:
    """What there is of a plan to give back."""

    plan: str
    live: list[Found] = field(default_factory=list)
    left: list[LeftOut] = field(default_factory=list)
    off_w: dict[str, int | None] = field(default_factory=dict)
    """Order → what it took off, of every order of the plan that was accepted, those on their way back too."""
    phones: dict[str, str] = field(default_factory=dict)
    """By central's word."""


def review(
    central: Central,
    register: KeysDocument,
    plan: str,
    *,
    zones: Collection[str] | None,
    kids: Collection[str],
    now_ms: int,
    issued: Mapping[str, Collection[str]] | None = None,
) -> Review:
    """All live orders of a plan that these keys can release now, and everybody who is left out with the reason.

    Args:
        central: whose list is read.
        register: verified; its zones, sites, persons and keys alone count.
        plan: the plan's id.
        zones: only sites of these; ``None`` for all.
        kids: keys that are going to sign.
        now_ms: the present.
        issued: site → orders of the plan by the gateway's own journal, asked for whether central lists them or not.

    Raises:
        CentralUnreachable: central does not answer.
    """
    found = Review(plan)
    claims = {row["id"]: row for row in central.sites() if isinstance(row.get("id"), str)}
    for entry in register.sites:
        if zones is None or entry.zone in zones:
            claim = claims.get(entry.id, {})
            phone = text_of(claim.get("phone"), 60)
            if phone is not None:
                found.phones[entry.id] = phone
            known = (issued or {}).get(entry.id, ())
            _Site(central, register, entry, found, now_ms, known).look(claim, kids)
    named = {one.site.id for one in found.live} | {left.site for left in found.left}
    touched = {entry.zone for entry in register.sites if entry.id in named}
    for entry in register.sites:
        if entry.zone in touched and entry.id not in named and (zones is None or entry.zone in zones):
            found.left.append(LeftOut(entry.id, None, "none", "no live order of the plan is shown", held=False))
    return found


class _Site:
    """One site under review."""

    def __init__(
        self,
        central: Central,
        register: KeysDocument,
        entry: RegisteredSite,
        found: Review,
        now_ms: int,
        issued: Collection[str],
    ) -> None:
        self._central, self._register, self._entry = central, register, entry
        self._found, self._now_ms, self._issued = found, now_ms, issued
        self._read: dict[str, tuple[SignedOrder, Story] | None] = {}

    def look(self, claim: Mapping[str, Any], kids: Collection[str]) -> None:
        """Put the site's orders where they belong."""
        live: list[tuple[SignedOrder, Story]] = []
        silent: list[SignedOrder] = []
        for name in self._listed():
            known = self._order(name)
            if known is None:
                continue
            signed, story = known
            stands = _stands(story)
            if stands == "live":
                live.append(known)
            elif stands == "unanswered":
                silent.append(signed)
            elif stands == "returning":
                self._found.off_w[name] = self._off_w(name)
                self._leave(name, "released", "released already, its load is on its way back", held=False)
            elif stands == "trial":
                self._leave(name, "trial", f"nothing was moved for it ({story.trial})", held=False)
        passed = {signed.order.supersedes for signed, _ in live}
        silent = [signed for signed in silent if signed.order.id not in passed]
        for signed in silent:
            why = "no signed answer of the site is shown: ask it whether it holds this"
            self._leave(signed.order.id, "unanswered", why)
        waits = any(self._now_ms <= signed.order.execute_by for signed in silent)
        for signed, story in live:
            if signed.order.id not in passed:
                self._live(claim, kids, signed, _counted(story)[-1], waits=waits)

    def _live(
        self, claim: Mapping[str, Any], kids: Collection[str], signed: SignedOrder, last: Answer, *, waits: bool
    ) -> None:
        name = signed.order.id
        self._found.off_w[name] = off = self._off_w(name)
        refusal = self._refusal(claim, last, kids, waits=waits)
        if refusal is None:
            self._found.live.append(Found(self._entry, signed, off))
        else:
            self._leave(name, *refusal)

    def _listed(self) -> list[str]:
        """Ids of the orders that may be live: what central shows for the site, and what the gateway's journal has."""
        if not self._entry.epochs:
            return []
        names = list(self._issued)
        try:
            rows = self._central.orders(self._entry.id, LISTED)
            names += [name for row in rows[:LISTED] if (name := self._candidate(row)) is not None]
        except CentralUnreachable:
            raise
        except GridError as error:
            self._leave(None, "not_shown", f"central does not show its orders: {error}")
        return list(dict.fromkeys(names))

    def _candidate(self, row: Mapping[str, Any]) -> str | None:
        """Id of an order that may be live; what central itself calls over is not asked for."""
        name, action, state = text_of(row.get("id"), 36), row.get("action"), row.get("signed_state")
        over = isinstance(state, str) and state in ENDED
        return None if over or (isinstance(action, str) and action not in SHEDDING) else name

    def _order(self, name: str) -> tuple[SignedOrder, Story] | None:
        """An order of the plan with its verified story; anything else is named, and ``None``."""
        if name not in self._read:
            self._read[name] = None
            try:
                signed, lines = fetch_order(self._central, name)
            except CentralUnreachable:
                raise
            except GridError as error:
                self._leave(name, "not_shown", str(error))
                return None
            if not signed.order.sheds or signed.order.mode != "live":
                return None
            story = tell(signed, lines, self._register)
            strange = not_of_plan(signed, self._entry, self._found.plan, self._register)
            if strange is None:
                self._read[name] = (signed, story)
            elif strange[0] != "other" or _stands(story) == "live":
                self._leave(name, *strange, held=strange[0] != "other")
        return self._read[name]

    def _off_w(self, name: str) -> int | None:
        """What this order and those of the plan that it took over from took off, by the site's signed figures."""
        total, following = 0, name
        for _ in range(MAX_CHAIN):
            known = self._order(following)
            if known is None:
                return None
            accepted = known[1].accepted
            if accepted is not None:
                if accepted.before_w is None or accepted.target_w is None:
                    return None
                total += max(0, accepted.before_w - accepted.target_w)
            earlier = known[0].order.supersedes
            if earlier is None:
                return total
            following = earlier
        return None

    def _refusal(
        self, claim: Mapping[str, Any], last: Answer, kids: Collection[str], *, waits: bool
    ) -> tuple[str, str] | None:
        presence = text_of(claim.get("presence"), 20) or "unknown"
        if presence != "online":
            return "off_line", f"{presence}: a release is good for 10 minutes; run this again when it is back"
        alarms = texts_of(claim.get("alarms"))
        if Flag.SAON_LOCK in last.flags or "saon_lock" in alarms:
            return "locked", "locked after САОН: the system operator's dispatcher and a second person release it alone"
        issuers = [issuer for kid in kids if (issuer := self._register.issuer(kid)) is not None]
        if "clock_unsynchronised" in alarms and len({issuer.person for issuer in issuers}) < 2:
            return "clock", "its clock is not synchronised: two persons have to sign; give --key of both"
        for issuer in issuers:
            if self._entry.id not in issuer.sites and self._entry.zone not in issuer.zones:
                return "no_right", f"key {issuer.kid} has no right there (zone {self._entry.zone})"
        if waits:
            return "may_begin", "a later order of the plan may still begin there; run this again in a minute"
        return None

    def _leave(self, order: str | None, code: str, why: str, *, held: bool = True) -> None:
        self._found.left.append(LeftOut(self._entry.id, order, code, plain(why, 300), held))


def not_of_plan(
    signed: SignedOrder, entry: RegisteredSite, plan: str, register: KeysDocument
) -> tuple[str, str] | None:
    """Why an order is none of the plan's, as code and words; ``None`` for one that is.

    ``other``: a good order of somebody else. ``forged``: it is not what it says.
    """
    order = signed.order
    if order.site != entry.id:
        return "forged", f"central shows it for {entry.id}, it is an order for {order.site}"
    try:
        kids = signed.envelope.verify(register.verify_keys())
    except WireError as error:
        return "forged", f"not signed by a registered key: {error}"
    if order.mandate is None:
        who = ", ".join(issuer.person for kid in kids if (issuer := register.issuer(kid)) is not None)
        return "other", f"an order of {who}, not of this plan; it stands, and the stricter limit holds"
    try:
        # A mandate that ran out since gave its power when the order was signed.
        mandate = open_mandate(order.mandate, register, zone=entry.zone, at_ms=order.issued_at)
    except WireError as error:
        return "forged", f"its mandate does not hold: {error}"
    if mandate.plan != plan:
        return "other", f"an order of plan {mandate.plan}; it stands, and the stricter limit holds"
    if kids != (mandate.gateway,) or len(signed.envelope.signatures) != 1:
        return "forged", f"signed by {', '.join(kids)}, its mandate is for {mandate.gateway} alone"
    if order.action not in mandate.actions:
        return "forged", f"an order to {order.action}, its mandate allows {', '.join(mandate.actions)}"
    if order.epoch != current_epoch(register, entry.id):
        return "other_epoch", f"of epoch {order.epoch}, the register's is {current_epoch(register, entry.id)}"
    return None


def _counted(story: Story) -> list[Answer]:
    """Answers without refusals of a copy: they do not undo what the first one began."""
    return [a for a in story.answers if story.accepted is None or a.state != OrderState.REJECTED]


def _stands(story: Story) -> str:
    """``live``, ``returning``, ``over``, ``trial`` or ``unanswered``, by signed answers alone."""
    counted = _counted(story)
    if not counted:
        return "unanswered"
    if counted[-1].state in ENDED:
        return "over"
    if story.accepted is None:
        return "unanswered"
    if story.trial is not None:
        return "trial"
    return "returning" if counted[-1].state in RETURNING else "live"
