"""Is this order authentic, permitted, new and in time? Pure: everything known is passed in (``docs/protocol.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.curtailment.voids import Void
from wire.errors import BadSignature, WireError
from wire.keys import VerifyKey
from wire.orders import Order, SignedOrder
from wire.powers import Declaration, Mandate, open_declaration, open_mandate
from wire.registry import Issuer, KeysDocument
from wire.states import Flag, OrderState, Reason, ended

FUTURE_MS = 60_000
RELEASE_MAX_AGE_MS = 600_000
PROOF_WINDOW_MS = 4 * 3_600_000


@dataclass(frozen=True, slots=True)
class Known:
    """An order the journal already holds."""

    digest: str
    state: OrderState


@dataclass(frozen=True, slots=True)
class Context:
    """What the agent knows when an order arrives."""

    site: str
    epoch: str
    genesis_ms: int
    now_ms: int
    trusted_low_ms: int
    synchronised: bool
    retained: bool
    mode: str
    keys: KeysDocument | None
    last_seq: Mapping[str, int]
    known: Mapping[str, Known]
    voids: tuple[Void, ...] = ()
    """Cancellations that came before this order."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accepted, refused with a reason, or a repetition of a live order."""

    reason: Reason | None
    text: str
    kids: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    flags: frozenset[Flag] = frozenset()
    duplicate: bool = False
    issuers: tuple[Issuer, ...] = field(default=(), repr=False)
    declaration: Declaration | None = None
    mandate: Mandate | None = None
    voided_by: str = ""
    """The cancellation that came before it; it is taken as cancelled."""

    @property
    def accepted(self) -> bool:
        """True where the order shall be carried out."""
        return self.reason is None and not self.duplicate


def judge(signed: SignedOrder, ctx: Context) -> Verdict:
    """Judge an order. The order of the checks is part of the contract: authenticity before anything it says."""
    order = signed.order
    if ctx.retained:
        return Verdict(Reason.RETAINED, "orders are never retained messages; the broker replayed an old one")
    refusal = _addressed(order, ctx)
    if refusal is not None:
        return refusal
    authentic = _authentic(signed, ctx)
    if authentic.reason is None:
        authentic = _empowered(order, ctx, authentic)
    if authentic.reason is not None:
        return authentic
    replay = _replayed(signed, ctx, authentic)
    if replay is not None:
        return replay
    timely = _timely(order, ctx, authentic)
    if timely.reason is not None:
        return timely
    void = _voided(order, ctx, timely)
    if void is not None:
        return replace(timely, text=f"cancelled by {void.by} before it came", voided_by=void.by)
    if ctx.mode == "monitor" and order.mode != "drill":
        return Verdict(
            Reason.MODE, "the agent is in mode monitor: it may not act; raise it by a signed act", authentic.kids
        )
    if order.mode == "proof_test":
        return _proof_test(order, ctx, timely)
    return timely


def _proof_test(order: Order, ctx: Context, ok: Verdict) -> Verdict:
    """A live test of one feeder: by name, in a window, with the consent of the site and of the grid operator."""
    roles = {person.role for name in ok.persons if ctx.keys and (person := ctx.keys.person(name))}
    if order.action != "open_feeders" or len(order.feeders or ()) != 1:
        return Verdict(Reason.FORMAT, "a proof test opens exactly one named feeder (open_feeders)", ok.kids)
    if order.not_before is None or order.execute_by - order.not_before > PROOF_WINDOW_MS:
        return Verdict(
            Reason.FORMAT,
            f"a proof test has a window: not_before, and execute_by at most {PROOF_WINDOW_MS // 60_000} min later",
            ok.kids,
        )
    if not ("site" in roles and roles & {"system_operator", "grid_company"}):
        return Verdict(
            Reason.TWO_PERSONS,
            f"a proof test needs the signatures of a person of the site and of the grid operator; signed by "
            f"{', '.join(ok.persons)}",
            ok.kids,
        )
    return ok


def _addressed(order: Order, ctx: Context) -> Verdict | None:
    if order.site != ctx.site:
        return Verdict(Reason.WRONG_SITE, f"order for site {order.site}, this is {ctx.site}")
    if order.epoch != ctx.epoch:
        return Verdict(Reason.WRONG_EPOCH, f"order for epoch {order.epoch}, this ledger lives in {ctx.epoch}")
    return None


def _authentic(signed: SignedOrder, ctx: Context) -> Verdict:
    order = signed.order
    if ctx.keys is None:
        return Verdict(Reason.UNKNOWN_KEY, "no register of issuers has been received yet")
    seen = tuple(kid for kid, _ in signed.envelope.signatures)
    known = {kid: VerifyKey.from_text(issuer.key) for kid in seen if (issuer := ctx.keys.issuer(kid)) is not None}
    if not known:
        return Verdict(
            Reason.UNKNOWN_KEY, f"signed by {', '.join(seen)}: not in the register version {ctx.keys.version}"
        )
    try:
        kids = signed.envelope.verify(known)
    except BadSignature as error:
        return Verdict(Reason.BAD_SIGNATURE, str(error))
    issuers: list[Issuer] = []
    for kid in kids:
        revoked = ctx.keys.revoked_at(kid)
        if revoked is not None:
            return Verdict(Reason.REVOKED_KEY, f"key {kid} was revoked", kids)
        issuer = ctx.keys.issuer(kid)
        if issuer is None or not issuer.valid_from <= order.issued_at <= issuer.valid_to:
            return Verdict(Reason.REVOKED_KEY, f"key {kid} was not valid when the order was issued", kids)
        issuers.append(issuer)
    site = ctx.keys.site(ctx.site)
    zone = site.zone if site else None
    for issuer in issuers:
        if order.action not in issuer.rights:
            return Verdict(Reason.NO_RIGHT, f"key {issuer.kid} has no right to {order.action}", kids)
        if ctx.site not in issuer.sites and zone not in issuer.zones:
            return Verdict(Reason.NO_RIGHT, f"key {issuer.kid} may not order site {ctx.site} (zone {zone})", kids)
    persons = tuple(dict.fromkeys(i.person for i in issuers))
    stranger = _no_say(order, ctx.keys, persons)
    if stranger is not None:
        return Verdict(Reason.NO_RIGHT, stranger, kids, persons)
    return Verdict(None, "authentic", kids, persons, issuers=tuple(issuers))


def _no_say(order: Order, keys: KeysDocument, persons: tuple[str, ...]) -> str | None:
    """Why these persons have no say over the site's equipment; ``None`` where they have, or the register is silent.

    Switches are moved by whoever has the operational control; who has the jurisdiction may limit the load. What is in
    force may be undone by either. A person of the site may sign beside them.
    """
    site = keys.site(order.site)
    if site is None or site.operational_control is None:
        return None
    allowed = {site.operational_control}
    if order.action not in {"open_feeders", "emergency_trip"}:
        allowed |= set(site.operational_jurisdiction)
    signers = [p for name in persons if (p := keys.person(name)) is not None and p.role != "site"]
    if any(person.organisation in allowed for person in signers):
        return None
    seen = ", ".join(sorted({person.organisation for person in signers})) or "the site alone"
    return f"{order.action} is for {', '.join(sorted(allowed))} to order, which control this site; signed by {seen}"


def _empowered(order: Order, ctx: Context, ok: Verdict) -> Verdict:
    """A gateway needs a mandate; a declaration or mandate that comes with the order has to hold."""
    if ctx.keys is None:
        return ok
    site = ctx.keys.site(ctx.site)
    zone = site.zone if site else None
    # What a set-back clock would make valid again is judged by the trusted time.
    now_ms = max(ctx.now_ms, ctx.trusted_low_ms)
    roles = [person.role if (person := ctx.keys.person(i.person)) else "" for i in ok.issuers]
    try:
        declaration = mandate = None
        if order.declaration is not None:
            declaration = open_declaration(order.declaration, ctx.keys, zone=zone, at_ms=now_ms)
        if order.mandate is not None:
            mandate = open_mandate(order.mandate, ctx.keys, zone=zone, at_ms=now_ms)
        if "gateway" in roles:
            _bounded(order, ok, mandate)
    except WireError as error:
        return Verdict(Reason.NO_POWER, str(error), ok.kids)
    return replace(ok, declaration=declaration, mandate=mandate if "gateway" in roles else None)


def _bounded(order: Order, ok: Verdict, mandate: Mandate | None) -> None:
    """Is a gateway's order within its mandate, as far as the order itself tells?"""
    if mandate is None:
        raise WireError("signed by a gateway without a mandate of two persons")
    if [mandate.gateway] != list(ok.kids):
        raise WireError(f"the mandate is for gateway {mandate.gateway}, the order is signed by {', '.join(ok.kids)}")
    if order.action not in mandate.actions:
        raise WireError(f"the mandate allows {', '.join(mandate.actions)}, not {order.action}")
    if order.max_step_w is None or order.max_step_w > mandate.max_step_w:
        raise WireError(f"max_step_w {order.max_step_w} is above the mandate's {mandate.max_step_w} W, or missing")
    if order.ramp_w_per_min is None or order.ramp_w_per_min > mandate.max_ramp_w_per_min:
        raise WireError(
            f"ramp_w_per_min {order.ramp_w_per_min} is above the mandate's {mandate.max_ramp_w_per_min} W, or missing"
        )


def _replayed(signed: SignedOrder, ctx: Context, ok: Verdict) -> Verdict | None:
    order = signed.order
    before = ctx.known.get(order.id)
    if before is not None:
        if before.digest != signed.digest:
            return Verdict(Reason.ID_REUSE, f"order {order.id} is known with other content", ok.kids)
        if ended(before.state):
            return Verdict(Reason.REPLAY, f"order {order.id} is finished ({before.state})", ok.kids)
        return Verdict(None, "already received", ok.kids, ok.persons, duplicate=True)
    last = ctx.last_seq.get(ok.kids[0])
    # The number of its own cancellation is above its own, and no reason to call it old.
    if last is not None and order.seq <= last and _voided(order, ctx, ok) is None:
        return Verdict(Reason.OLD_SEQ, f"number {order.seq} of key {ok.kids[0]}: already saw {last}", ok.kids)
    return None


def _voided(order: Order, ctx: Context, ok: Verdict) -> Void | None:
    """The cancellation that this order came too late for; one of fewer other persons does not reach it."""
    return next((void for void in ctx.voids if void.covers(ok.persons)), None) if order.sheds else None


def _timely(order: Order, ctx: Context, ok: Verdict) -> Verdict:
    flags: set[Flag] = set()
    if not ctx.synchronised:
        flags.add(Flag.CLOCK_SUSPECT)
    if order.mode == "drill":
        flags.add(Flag.DRILL)
    if order.issued_at < ctx.genesis_ms:
        return Verdict(Reason.BEFORE_GENESIS, "issued before this ledger's life began", ok.kids)
    if ctx.synchronised and order.issued_at > ctx.now_ms + FUTURE_MS:
        ahead = (order.issued_at - ctx.now_ms) // 1000
        return Verdict(Reason.FUTURE, f"issued {ahead} s in the future; check the issuer's clock", ok.kids)
    if min(order.execute_by, order.expires_at) < ctx.trusted_low_ms:
        late = (ctx.trusted_low_ms - order.execute_by) // 1000
        return Verdict(Reason.EXPIRED, f"had to begin {late} s ago", ok.kids)
    if not order.sheds and order.action != "cancel":
        if not ctx.synchronised and len(ok.persons) < 2:
            return Verdict(
                Reason.CLOCK, "the site's clock is not synchronised: a release needs two persons' signatures", ok.kids
            )
        if ctx.now_ms - order.issued_at > RELEASE_MAX_AGE_MS:
            return Verdict(Reason.STALE_RELEASE, "issued over 10 minutes ago: sign a new one", ok.kids)
    return replace(ok, text="accepted", flags=frozenset(flags))
