"""Gates: who may raise the mode and arm an output, what makes that lapse, and that doubt never closes a switch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.curtailment.gates import MONTH_MS
from agent.inbox import Inbox
from config.nodes import Input, Switch
from config.site import Site
from drivers.capabilities import Position, SwitchState
from tests.unit.agent_kit import START_MS, Core, issuer, register, running_core, small_site
from wire.acts import encode_act
from wire.dsse import ACT_TYPE, seal
from wire.errors import WireError
from wire.keys import SigningKey
from wire.registry import Revocation


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path, armed=False) as found:
        yield found


# the mode ------------------------------------------------------------------------------------------------------------


async def test_it_begins_in_monitor_whatever_the_file_asks_for(core: Core) -> None:
    assert core.site.agent.mode == "armed"
    assert core.gates.mode == "monitor"


async def test_the_file_bounds_what_people_sign(tmp_path: Path) -> None:
    site = small_site()
    site = site.model_copy(update={"agent": site.agent.model_copy(update={"mode": "shadow"})})
    async with running_core(tmp_path, site=site) as core:
        assert core.gates.mode == "shadow"


@pytest.mark.parametrize(
    ("mode", "signers", "why"),
    [
        ("armed", ("dispatcher",), "two persons"),
        ("armed", ("engineer",), "two persons"),
        ("armed", ("dispatcher", "second"), "site and one of the grid"),
        ("shadow", ("engineer",), "two persons"),
    ],
)
async def test_a_step_up_needs_two_persons_of_the_right_sides(
    core: Core, mode: str, signers: tuple[str, ...], why: str
) -> None:
    with pytest.raises(WireError, match=why):
        await core.act(core.mode_act(mode), *(getattr(core.people, s) for s in signers))
    assert core.gates.mode == "monitor"


@pytest.mark.parametrize("signers", [("dispatcher", "engineer"), ("engineer", "second")])
async def test_site_and_grid_together_arm_it_and_it_stays_so_after_a_restart(
    core: Core, signers: tuple[str, ...]
) -> None:
    await core.act(core.mode_act("armed"), *(getattr(core.people, s) for s in signers))
    assert core.gates.mode == "armed"
    await core.reboot()
    assert core.gates.mode == "armed"
    record = (await core.records("act", "site"))[-1]
    assert record["act"] == "mode"


async def test_one_person_alone_may_always_step_down(core: Core) -> None:
    await core.arm()
    await core.act(core.mode_act("monitor"), core.people.engineer)
    assert core.gates.mode == "monitor"


def two_keys_of_one_person(core: Core) -> tuple[SigningKey, ...]:
    spare = SigningKey.generate()
    core.keys = register(core.people, issuers=(issuer(core.people.dispatcher, "aru"), issuer(spare, "aru")))
    return core.people.dispatcher, spare


def without_right(core: Core) -> tuple[SigningKey, ...]:
    core.keys = register(
        core.people,
        issuers=(issuer(core.people.dispatcher, "aru"), issuer(core.people.engineer, "dana", rights=("limit",))),
    )
    return core.people.dispatcher, core.people.engineer


def revoked(core: Core) -> tuple[SigningKey, ...]:
    core.keys = register(core.people, revoked=(Revocation(kid=core.people.engineer.kid, at=START_MS, reason="left"),))
    return core.people.dispatcher, core.people.engineer


def elsewhere(core: Core) -> tuple[SigningKey, ...]:
    core.keys = register(
        core.people,
        issuers=(issuer(core.people.dispatcher, "aru"), issuer(core.people.engineer, "dana", sites=("kz-other",))),
    )
    return core.people.dispatcher, core.people.engineer


def out_of_date(core: Core) -> tuple[SigningKey, ...]:
    core.keys = register(
        core.people,
        issuers=(
            issuer(core.people.dispatcher, "aru"),
            issuer(core.people.engineer, "dana", valid_to=START_MS - 1),
        ),
    )
    return core.people.dispatcher, core.people.engineer


def no_register(core: Core) -> tuple[SigningKey, ...]:
    core.keys = None
    return core.people.dispatcher, core.people.engineer


@pytest.mark.parametrize("case", [two_keys_of_one_person, without_right, revoked, elsewhere, out_of_date, no_register])
async def test_an_act_without_rights_changes_nothing(
    core: Core, case: Callable[[Core], tuple[SigningKey, ...]]
) -> None:
    keys = case(core)
    with pytest.raises(WireError):
        await core.act(core.mode_act("armed"), *keys)
    assert core.gates.mode == "monitor"
    assert await core.records("act", "site") == []


@pytest.mark.parametrize("change", ["epoch", "site", "future"])
async def test_an_act_for_another_life_or_time_is_refused(core: Core, change: str) -> None:
    act = core.mode_act("armed")
    update: dict[str, Any] = {
        "epoch": {"epoch": "e9-00000000"},
        "site": {"site": "kz-other"},
        "future": {"at": core.clock.now_ms() + 3_600_000},
    }[change]
    with pytest.raises(WireError, match=r"sign a new one|future"):
        await core.act(act.model_copy(update=update), core.people.dispatcher, core.people.engineer)


async def test_an_act_is_taken_once(core: Core) -> None:
    act = core.mode_act("armed")
    await core.act(act, core.people.dispatcher, core.people.engineer)
    await core.act(core.mode_act("monitor"), core.people.engineer)
    with pytest.raises(WireError, match="already taken"):
        await core.act(act, core.people.dispatcher, core.people.engineer)
    assert core.gates.mode == "monitor"


# commissioning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fingerprint": "0" * 64}, "fingerprint"),
        ({"others_moved": ("M2",)}, "M2"),
        ({"stayed_open_s": 9}, "re-closing"),
        ({"seen_w": 11_000}, "fell by"),
        ({"seen_w": 17_000}, "fell by"),
        ({"seen_w": 0}, "fell by"),
        ({"expected_w": 0, "seen_w": 0}, "nothing was proven"),
        ({"meter": "M2"}, "expected M1"),
    ],
)
async def test_a_commissioning_that_proves_something_else_is_refused(
    core: Core, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(WireError, match=why):
        await core.act(core.commissioning("KM1", **change), core.people.dispatcher, core.people.engineer)
    assert core.gates.unusable("KM1") == "not commissioned"


async def test_an_incomer_is_never_an_output(core: Core) -> None:
    assert core.gates.unusable("QF0") == "not an output"
    assert core.gates.unusable("nonsense") == "not an output"


async def test_commissioning_arms_that_output_alone_and_outlives_a_restart(core: Core) -> None:
    await core.act(core.commissioning("KM1"), core.people.dispatcher, core.people.engineer)
    assert core.gates.unusable("KM1") is None
    assert core.gates.unusable("KM2") == "not commissioned"
    await core.reboot()
    assert core.gates.unusable("KM1") is None


async def test_commissioning_lapses_with_time(core: Core) -> None:
    await core.arm()
    core.clock.advance(12 * MONTH_MS / 1000)
    assert core.gates.unusable("KM1") is None
    core.clock.advance(1)
    assert "older than 12 months" in str(core.gates.unusable("KM1"))


def changed(site: Site, what: str) -> Site:
    if what == "wiring":
        nodes = tuple(
            n.model_copy(update={"control": n.control.model_copy(update={"output": "relay_4"})})
            if isinstance(n, Switch) and n.id == "KM1" and n.control
            else n
            for n in site.nodes
        )
        return site.model_copy(update={"nodes": nodes})
    if what == "graph":
        nodes = tuple(n.model_copy(update={"rated_kw": 90}) if n.id == "MINERS1" else n for n in site.nodes)
        return site.model_copy(update={"nodes": nodes})
    devices = tuple(d.model_copy(update={"unit": 9}) if d.id == "io-1" else d for d in site.devices)
    return site.model_copy(update={"devices": devices})


@pytest.mark.parametrize("what", ["wiring", "graph", "device"])
async def test_commissioning_lapses_with_any_change_of_what_it_proved(core: Core, what: str) -> None:
    await core.arm()
    core.site = changed(core.site, what)
    await core.reboot()
    assert "lapsed" in str(core.gates.unusable("KM1"))


async def test_commissioning_lapses_with_another_profile(core: Core) -> None:
    await core.arm()
    core.gates.profile_version = lambda _profile: "2"
    core.gates.load()
    assert "lapsed" in str(core.gates.unusable("KM1"))


# tags ----------------------------------------------------------------------------------------------------------------


async def test_only_its_owner_takes_a_tag_off(core: Core) -> None:
    await core.arm()
    await core.gates.tag("KM1", "Dana: shift 2", "permit 12")
    assert core.gates.unusable("KM1") == "tagged by Dana: shift 2: permit 12"
    for stranger in ("Bek", "Dana"):
        with pytest.raises(WireError, match="Dana: shift 2"):
            await core.gates.untag("KM1", stranger)
    await core.reboot()
    assert core.gates.unusable("KM1") is not None
    await core.gates.untag("KM1", "Dana: shift 2")
    assert core.gates.unusable("KM1") is None
    events = [e for e in await core.records("event", "site") if e["ev"] == "tag"]
    assert [e["now"] for e in events] == ["tagged", "removed"]


async def test_nobody_hangs_a_tag_over_another_s(core: Core) -> None:
    await core.gates.tag("KM1", "Dana", "permit 12")
    with pytest.raises(WireError, match="Dana"):
        await core.gates.tag("KM1", "Bek", "permit 13")
    await core.gates.tag("KM1", "Dana", "permit 12, extended")
    with pytest.raises(WireError, match="Dana"):
        await core.gates.untag("KM1", "Bek")


async def test_a_tag_at_nothing_is_not_believed_to_hang(core: Core) -> None:
    with pytest.raises(WireError, match="KM9"):
        await core.gates.tag("KM9", "Dana", "permit 12")
    with pytest.raises(WireError, match="no tag"):
        await core.gates.untag("KM1", "Dana")


# closing -------------------------------------------------------------------------------------------------------------

WIRED = ("remote", "lockout", "protection_trip", "trip_circuit_ok", "spring_charged")
READY = {"remote": True, "lockout": False, "protection_trip": False, "trip_circuit_ok": True, "spring_charged": True}


def wired(site: Site) -> Site:
    """All readiness points of KM1 wired, and by the way a first one that a person closes."""
    inputs = {name: (Input(device="io-1", input=f"di_{5 + n}"),) for n, name in enumerate(WIRED)}
    nodes = []
    for n in site.nodes:
        if isinstance(n, Switch) and n.id == "KM1":
            nodes.append(n.model_copy(update={"readiness": n.readiness.model_copy(update=inputs)}))
        else:
            nodes.append(n)
    return site.model_copy(update={"nodes": tuple(nodes)})


def opened(core: Core, position: Position = Position.OPEN, *, age_s: float = 0, **points: bool | None) -> None:
    mono = core.clock.mono_ns() - round(age_s * 1e9)
    core.live.put_switch("KM1", SwitchState(position, core.clock.now_ms(), mono, **points))


@pytest.fixture
async def ready(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path, site=wired(small_site())) as found:
        opened(found, **READY)
        found.clock.advance(60)  # its least time open
        opened(found, **READY)
        assert found.gates.may_close("KM1") is None
        yield found


@pytest.mark.parametrize("point", WIRED)
@pytest.mark.parametrize("value", ["bad", "unread"])
async def test_each_readiness_point_forbids_closing_when_bad_and_when_it_cannot_be_read(
    ready: Core, point: str, value: str
) -> None:
    opened(ready, **(READY | {point: None if value == "unread" else not READY[point]}))
    assert ready.gates.may_close("KM1") is not None


async def test_points_that_are_not_wired_forbid_nothing(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        opened(core)
        core.clock.advance(60)
        opened(core)
        assert core.gates.may_close("KM1") is None


@pytest.mark.parametrize("position", [p for p in Position if p is not Position.OPEN])
async def test_only_a_switch_that_is_read_open_is_closed(ready: Core, position: Position) -> None:
    opened(ready, position, **READY)
    assert "must be read open" in str(ready.gates.may_close("KM1"))


async def test_an_old_reading_is_no_reading(ready: Core) -> None:
    opened(ready, age_s=5.1, **READY)
    assert ready.gates.may_close("KM1") is not None
    ready.live.switches.clear()
    assert ready.gates.may_close("KM1") is not None


async def test_saon_mode_and_papers_forbid_closing(ready: Core) -> None:
    await ready.gates.set_saon_lock("stage 2")
    assert "САОН" in str(ready.gates.may_close("KM1"))
    await ready.gates.set_saon_lock(None)
    assert ready.gates.may_close("KM1") is None
    await ready.act(ready.mode_act("shadow"), ready.people.dispatcher, ready.people.engineer)
    assert "shadow" in str(ready.gates.may_close("KM1"))
    await ready.act(ready.mode_act("armed"), ready.people.dispatcher, ready.people.engineer)
    await ready.gates.tag("KM1", "Dana", "permit 12")
    assert "tagged" in str(ready.gates.may_close("KM1"))


@pytest.mark.parametrize("rule", ["never", "by_person"])
async def test_what_a_person_closes_the_agent_does_not(tmp_path: Path, rule: str) -> None:
    site = small_site()
    nodes = tuple(n.model_copy(update={"close": rule}) if n.id == "KM1" else n for n in site.nodes)
    async with running_core(tmp_path, site=site.model_copy(update={"nodes": nodes})) as core:
        opened(core)
        assert core.gates.may_close("KM1") == "closed by a person only"


# the inbox -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("doc", "good"),
    [
        ({"ty": "tag", "object": "KM1", "who": "Dana", "reason": "permit 12"}, True),
        ({"ty": "tag", "object": "KM9", "who": "Dana", "reason": "permit 12"}, False),
        ({"ty": "tag"}, False),
        ({"ty": "untag", "who": "Dana"}, False),
        ({"ty": "tag", "object": ["KM1"], "who": 5, "reason": None}, False),
        ({}, False),
        ([], False),
        (None, False),
    ],
)
async def test_whatever_lies_in_the_inbox_is_answered_and_nothing_dies(
    core: Core, tmp_path: Path, doc: Any, good: bool
) -> None:
    import json

    inbox = Inbox(tmp_path, core.gates, lambda: core.keys)
    path = tmp_path / "inbox" / "x.json"
    path.write_text(json.dumps(doc))
    await inbox._take(path)
    answer = json.loads((tmp_path / "inbox" / "x.result").read_text())
    assert answer["ok"] is good, answer
    assert answer["text"]
    assert not path.exists()


async def test_a_signed_act_in_the_inbox_takes_effect(core: Core, tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, core.gates, lambda: core.keys)
    path = tmp_path / "inbox" / "x.json"
    raw = seal(ACT_TYPE, encode_act(core.mode_act("armed")), core.people.dispatcher, core.people.engineer).encode()
    path.write_bytes(raw)
    await inbox._take(path)
    assert core.gates.mode == "armed"
