"""May this plan be carried out? Mandate, declaration and the register's bounds, checked by the gateway itself.

Nothing that central says counts here but the power that sites draw, and that only makes a step larger or smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

from grid.errors import PlanRefused
from grid.gateway.plan import Plan
from wire.errors import WireError
from wire.powers import Declaration, Mandate, open_declaration, open_mandate
from wire.registry import KeysDocument, Zone


@dataclass(frozen=True, slots=True)
class Powers:
    """What a plan may do: opened, and as the orders carry it."""

    mandate: Mandate
    mandate_text: str
    zones: tuple[Zone, ...]
    declaration: Declaration | None = None
    declaration_text: str | None = None

    @property
    def max_cut_w(self) -> int:
        """Most that one site may be made to shed over the whole plan."""
        if self.declaration is None:
            return self.mandate.max_cut_w
        return min(self.mandate.max_cut_w, self.declaration.cap_w)

    def max_step_w(self, zone: Zone) -> int:
        """Largest step of one order in a zone."""
        if self.declaration is not None:
            return self.mandate.max_step_w
        return min(self.mandate.max_step_w, zone.max_step_w)

    def zone(self, zone_id: str) -> Zone:
        """Bounds of a zone of the plan."""
        return next(zone for zone in self.zones if zone.id == zone_id)


def check_plan(
    plan: Plan,
    mandate_text: str,
    declaration_text: str | None,
    *,
    kid: str,
    register: KeysDocument,
    now_ms: int,
) -> Powers:
    """The powers under which a plan may start.

    Raises:
        PlanRefused: what was seen, what was expected and what to do.
    """
    _check_gateway(plan, kid, register, now_ms)
    zones = []
    for name in plan.zones:
        zone = register.zone(name)
        if zone is None:
            raise PlanRefused(
                f"zone {name}: the register (version {register.version}) has no bounds of it, so no plan is possible "
                "there; the registrar adds it to 'zones'"
            )
        zones.append(zone)
    try:
        opened = [open_mandate(mandate_text, register, zone=name, at_ms=now_ms) for name in plan.zones]
        declared: list[Declaration] = []
        if declaration_text is not None:
            declared = [open_declaration(declaration_text, register, zone=name, at_ms=now_ms) for name in plan.zones]
    except WireError as error:
        raise PlanRefused(f"{error}; two persons sign it anew with 'tizgin order mandate' or 'declare'") from None
    powers = Powers(opened[0], mandate_text, tuple(zones), next(iter(declared), None), declaration_text)
    _check_mandate(plan, powers, kid)
    _check_ramp(plan, powers)
    return powers


def _check_gateway(plan: Plan, kid: str, register: KeysDocument, now_ms: int) -> None:
    issuer = register.issuer(kid)
    person = register.person(issuer.person) if issuer else None
    if issuer is None or person is None:
        raise PlanRefused(f"key {kid} is not in register version {register.version}: the registrar adds the gateway")
    if person.role != "gateway":
        raise PlanRefused(f"key {kid} belongs to {person.id}, role {person.role}: a gateway needs a key of its own")
    if register.revoked_at(kid) is not None or not issuer.valid_from <= now_ms <= issuer.valid_to:
        raise PlanRefused(f"key {kid} was revoked or is not valid now; the registrar names a new one")
    if "limit" not in issuer.rights:
        raise PlanRefused(f"key {kid} has no right to limit; it has {', '.join(issuer.rights) or 'none'}")
    sites = {site.id for site in register.sites if site.zone in plan.zones}
    beyond = sorted(set(plan.zones) - set(issuer.zones))
    if beyond and not sites <= set(issuer.sites):
        raise PlanRefused(
            f"key {kid} has no right in {', '.join(beyond)}; it has {', '.join(issuer.zones) or 'no zone'}"
        )


def _check_mandate(plan: Plan, powers: Powers, kid: str) -> None:
    mandate = powers.mandate
    if mandate.gateway != kid:
        raise PlanRefused(f"the mandate is for gateway {mandate.gateway}, this is {kid}: sign one for this key")
    if mandate.plan != plan.id:
        raise PlanRefused(f"the mandate is for plan {mandate.plan}, this is {plan.id}: sign one for this plan")
    if "limit" not in mandate.actions:
        raise PlanRefused(f"the mandate allows {', '.join(mandate.actions)}; this gateway orders limits: allow limit")
    if 0 in {mandate.max_step_w, mandate.max_ramp_w_per_min, mandate.max_cut_w}:
        raise PlanRefused("the mandate's cut, step or ramp is 0 W: nothing could ever move")


def _check_ramp(plan: Plan, powers: Powers) -> None:
    if plan.ramp_w_per_min is None:
        return
    if plan.ramp_w_per_min > powers.mandate.max_ramp_w_per_min:
        raise PlanRefused(
            f"ramp of {plan.ramp_w_per_min} W per minute, the mandate allows {powers.mandate.max_ramp_w_per_min}: "
            "lower the plan's ramp, or sign another mandate"
        )
    allowed = sum(zone.max_ramp_w_per_min for zone in powers.zones)
    if powers.declaration is None and plan.ramp_w_per_min > allowed:
        raise PlanRefused(
            f"ramp of {plan.ramp_w_per_min} W per minute, zones {', '.join(plan.zones)} allow {allowed}: lower it, or "
            "give the file of a live emergency declaration («Авария»)"
        )


def check_step(plan: Plan, powers: Powers, cut_w: dict[str, int]) -> None:
    """Is the plan's one step small enough for its zones?

    Args:
        plan: with a ramp there is no such step.
        powers: a live declaration lifts the bound.
        cut_w: zone → what it would give at once.

    Raises:
        PlanRefused: a zone's step is above the register's.
    """
    if plan.ramp_w_per_min is not None or powers.declaration is not None:
        return
    for zone in powers.zones:
        step = cut_w.get(zone.id, 0)
        if step > zone.max_step_w:
            raise PlanRefused(
                f"zone {zone.id}: a step of {step} W, the register allows {zone.max_step_w} W at once: give the plan a "
                f"ramp_w_per_min of at most {zone.max_ramp_w_per_min}, or the file of a live emergency declaration "
                "(tizgin order declare)"
            )
