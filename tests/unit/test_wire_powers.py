"""Emergency declarations and mandates: two persons, zones, times; and what an agent lets an order do with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.curtailment.intake import Context, Verdict, judge
from tests.unit.agent_kit import (
    RIGHTS,
    START_MS,
    Core,
    People,
    SimClock,
    issuer,
    make_order,
    register,
    running_core,
    sealed,
)
from wire.errors import WireError
from wire.keys import SigningKey, b64
from wire.orders import Order, parse_order, uuid7
from wire.powers import Declaration, Mandate, open_declaration, open_mandate, sign_power
from wire.registry import KeysDocument, Person, Revocation
from wire.states import Reason

NOW = START_MS
ZONE = "karaganda"
EPOCH = "e1-0badcafe"
PEOPLE = People.make()
GATEWAY = SigningKey.generate()
HOUR = 3_600_000


def register_of(people: People = PEOPLE, **changes: Any) -> KeysDocument:
    rights = (*RIGHTS, "declare", "mandate")
    both = {"rights": rights, "zones": (ZONE, "astana"), "solo_w": 6_000}
    fields: dict[str, Any] = {
        "persons": (
            Person(id="aru", name="Aru", organisation="SO", role="system_operator"),
            Person(id="bek", name="Bek", organisation="Grid", role="grid_company"),
            Person(id="gate", name="Gateway", organisation="Grid", role="gateway"),
        ),
        "issuers": (
            issuer(people.dispatcher, "aru", **both),
            issuer(people.second, "bek", **both),
            issuer(GATEWAY, "gate", rights=("limit", "reduce"), solo_w=0),
        ),
    }
    return register(people, **(fields | changes))


KEYS = register_of()


def declaration(**changes: Any) -> Declaration:
    fields: dict[str, Any] = {
        "v": 1, "id": uuid7(NOW), "zones": (ZONE,), "issued_at": NOW, "valid_from": NOW, "valid_to": NOW + HOUR,
        "cap_w": 100_000, "text": "Авария: отключение ВЛ",
    }  # fmt: skip
    return Declaration(**(fields | changes))


def mandate(**changes: Any) -> Mandate:
    fields: dict[str, Any] = {
        "v": 1, "id": uuid7(NOW), "plan": uuid7(NOW), "zones": (ZONE,), "gateway": GATEWAY.kid, "issued_at": NOW,
        "valid_from": NOW, "valid_to": NOW + HOUR, "actions": ("limit", "reduce"), "band_w": 1_000_000,
        "max_cut_w": 150_000, "max_step_w": 50_000, "max_ramp_w_per_min": 600_000,
    }  # fmt: skip
    return Mandate(**(fields | changes))


def text(power: Declaration | Mandate, *keys: SigningKey) -> str:
    return b64(sign_power(power, keys or (PEOPLE.dispatcher, PEOPLE.second)))


def opened(power: Declaration | Mandate, *keys: SigningKey, register_: KeysDocument = KEYS, zone: str = ZONE,
           at_ms: int = NOW) -> Declaration | Mandate:  # fmt: skip
    take: Callable[..., Declaration | Mandate] = open_declaration if isinstance(power, Declaration) else open_mandate
    return take(text(power, *keys), register_, zone=zone, at_ms=at_ms)


@pytest.mark.parametrize("power", [declaration(), mandate()], ids=["declaration", "mandate"])
def test_two_persons_make_a_power_in_their_zone_and_time(power: Declaration | Mandate) -> None:
    assert opened(power) == power


@pytest.mark.parametrize("make", [declaration, mandate], ids=["declaration", "mandate"])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda make: opened(make(), PEOPLE.dispatcher), "two persons"),
        (lambda make: opened(make(), PEOPLE.dispatcher, PEOPLE.dispatcher), "twice|two persons"),
        (lambda make: opened(make(), PEOPLE.dispatcher, SigningKey.generate()), "two persons|not known|unknown"),
        (lambda make: opened(make(), zone="astana"), "this site is in astana"),
        (lambda make: opened(make(zones=(ZONE, "almaty"))), "no right in all of the zones"),
        (lambda make: opened(make(), at_ms=NOW - 1), "now is"),
        (lambda make: opened(make(), at_ms=NOW + HOUR + 1), "now is"),
        (lambda make: opened(make(issued_at=NOW - 10**10)), "was not valid"),
        (
            lambda make: opened(
                make(), register_=register_of(revoked=(Revocation(kid=PEOPLE.second.kid, at=NOW, reason="lost"),))
            ),
            "revoked",
        ),
    ],
    ids=["one", "the same twice", "a stranger", "other zone", "zone beyond", "early", "late", "old key", "revoked"],
)
def test_a_power_that_does_not_hold_is_refused_with_the_reason(
    make: Callable[..., Declaration | Mandate], change: Callable[..., Any], match: str
) -> None:
    with pytest.raises(WireError, match=match):
        change(make)


def test_one_person_with_two_keys_is_one_person() -> None:
    other = SigningKey.generate()
    both = {"rights": (*RIGHTS, "declare"), "zones": (ZONE,)}
    keys = register_of(issuers=(issuer(PEOPLE.dispatcher, "aru", **both), issuer(other, "aru", **both)))
    with pytest.raises(WireError, match="two persons"):
        opened(declaration(), PEOPLE.dispatcher, other, register_=keys)


def test_a_right_of_its_own_is_needed() -> None:
    keys = register_of(
        issuers=(
            issuer(PEOPLE.dispatcher, "aru", rights=(*RIGHTS, "declare"), zones=(ZONE,)),
            issuer(PEOPLE.second, "bek", zones=(ZONE,)),
        )
    )
    with pytest.raises(WireError, match="no right to declare"):
        opened(declaration(), register_=keys)


def test_a_declaration_is_no_mandate() -> None:
    with pytest.raises(WireError):
        open_mandate(text(declaration()), KEYS, zone=ZONE, at_ms=NOW)


def test_powers_are_bounded_in_time() -> None:
    with pytest.raises(ValueError, match="24 hours"):
        declaration(valid_to=NOW + 25 * HOUR)
    with pytest.raises(ValueError, match="7 days"):
        mandate(valid_to=NOW + 8 * 24 * HOUR)


def test_a_gateway_can_have_no_right_but_to_limit_and_reduce() -> None:
    with pytest.raises(ValueError, match="gateway"):
        register_of(issuers=(issuer(GATEWAY, "gate", rights=("limit", "release")),))


def test_no_power_gives_a_right_to_restore() -> None:
    with pytest.raises(ValueError, match="not to restore"):
        limit(action="release", target=uuid7(NOW), declaration=text(declaration()))


# what an agent makes of an order with a power ---------------------------------------------------------------------


def limit(**changes: Any) -> Order:
    fields: dict[str, Any] = {"action": "limit"} | changes
    action = fields.pop("action")
    if action == "limit":
        fields = {"limit_w": 60_000} | fields
    return make_order(SimClock(NOW), EPOCH, 7, action, **fields)


def say(order: Order, *keys: SigningKey, now_ms: int = NOW) -> Verdict:
    context = Context(
        site="kz-small-1", epoch=EPOCH, genesis_ms=NOW - HOUR, now_ms=now_ms, trusted_low_ms=NOW, synchronised=True,
        retained=False, mode="armed", keys=KEYS, last_seq={}, known={},
    )  # fmt: skip
    return judge(parse_order(sealed(order, *(keys or (GATEWAY,)))), context)


def gateway_order(**changes: Any) -> Order:
    fields: dict[str, Any] = {"mandate": text(mandate()), "max_step_w": 50_000, "ramp_w_per_min": 600_000}
    return limit(**(fields | changes))


def test_a_gateway_orders_within_its_mandate() -> None:
    verdict = say(gateway_order())
    assert verdict.accepted
    assert verdict.mandate is not None


@pytest.mark.parametrize(
    "order",
    [
        limit,
        lambda: gateway_order(mandate=text(mandate(gateway=PEOPLE.second.kid))),
        lambda: gateway_order(mandate=text(mandate(), PEOPLE.dispatcher)),
        lambda: gateway_order(mandate=text(mandate(actions=("reduce",)))),
        lambda: gateway_order(max_step_w=50_001),
        lambda: gateway_order(max_step_w=None),
        lambda: gateway_order(ramp_w_per_min=600_001),
        lambda: gateway_order(ramp_w_per_min=None),
        lambda: gateway_order(mandate=text(mandate(zones=("astana",)))),
        lambda: gateway_order(mandate="!"),
        lambda: gateway_order(mandate=text(declaration())),
    ],
)
def test_outside_its_mandate_a_gateway_orders_nothing(order: Callable[[], Order]) -> None:
    verdict = say(order())
    assert (verdict.accepted, verdict.reason) == (False, Reason.NO_POWER)


def test_a_gateway_and_a_dispatcher_together_are_not_two_persons() -> None:
    assert say(limit(), GATEWAY, PEOPLE.dispatcher).reason is Reason.NO_POWER


def test_a_declaration_that_has_ended_refuses_the_order() -> None:
    order = limit(declaration=text(declaration()))
    assert say(order, PEOPLE.dispatcher).accepted
    assert say(order, PEOPLE.dispatcher, now_ms=NOW + HOUR + 1).reason is Reason.NO_POWER


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as core:
        core.keys = register_of(core.people)
        yield core


def text_of(core: Core, power: Declaration | Mandate) -> str:
    return b64(sign_power(power, (core.people.dispatcher, core.people.second)))


async def test_under_a_declaration_one_person_sheds_up_to_its_cap(core: Core) -> None:
    net = core.plant.net_w
    alone = await core.send(core.order("limit", limit_w=net - 10_000))
    assert (alone["state"], alone["code"]) == ("rejected", "solo_limit"), "6 kW is what one person may alone"
    live = text_of(core, declaration(cap_w=12_000))
    accepted = await core.send(core.order("limit", limit_w=net - 10_000, declaration=live))
    assert accepted["state"] == "validated"
    over = await core.send(core.order("limit", limit_w=net - 10_000, declaration=live))
    assert (over["state"], over["code"]) == ("rejected", "solo_limit"), "the cap is for all orders under it"


async def test_a_gateway_cuts_a_site_by_no_more_than_its_mandate(core: Core) -> None:
    net = core.plant.net_w
    fields: dict[str, Any] = {"max_step_w": 50_000, "ramp_w_per_min": 600_000}
    fields["mandate"] = text_of(core, mandate(max_cut_w=8_000))
    over = await core.send(core.order("limit", limit_w=net - 9_000, **fields), GATEWAY)
    assert (over["state"], over["code"]) == ("rejected", "no_power")
    assert (await core.send(core.order("limit", limit_w=net - 7_000, **fields), GATEWAY))["state"] == "validated"


async def test_a_second_person_countersigns_a_live_order_afterwards(core: Core) -> None:
    net = core.plant.net_w
    order = core.order("limit", limit_w=net - 5_000)
    assert (await core.send(order))["state"] == "validated"
    again = await core.send(order, core.people.dispatcher, core.people.second)
    assert again["dup"] is True
    assert "countersigned by bek" in again["text"]
    assert core.journal.live[order.id].doc.persons == ["aru", "bek"]
