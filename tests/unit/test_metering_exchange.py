"""A device was exchanged: evidence, a new binding, outputs unarmed; and what a person may not say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent.acquisition.bench import Bench
from agent.inbox import Inbox
from agent.metering.closer import SlotCloser
from agent.metering.exchange import Exchange, read_replacement
from tests.unit.agent_kit import Core, running_core
from tests.unit.metering_kit import SLOT, START_S, MeteringKit, metering
from wire.errors import WireError

TOLD: dict[str, Any] = {
    "ty": "replace",
    "device": "em-2",
    "serial": "55555555",
    "person": "A. Serik",
    "reason": "act 17, burnt",
    "closing_wh": 4_321_000,
    "closing_why": None,
    "opening_wh": 0,
    "photo_sha256": "ab" * 32,
}


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as made:
        yield made


def exchange_of(core: Core) -> Exchange:
    bench = Bench(core.site, core.live, core.clock)
    closer = SlotCloser(core.site, core.ledger, bench, core.fleet, core.fleet.graph, core.clock)
    return Exchange(core.site, core.ledger, core.gates, closer)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"person": ""}, "person"),
        ({"person": None}, "person"),
        ({"reason": "x" * 301}, "reason"),
        ({"serial": 7}, "serial"),
        ({"closing_wh": -1}, "closing_wh"),
        ({"closing_wh": 1.5}, "closing_wh"),
        ({"closing_wh": True}, "closing_wh"),
        ({"opening_wh": 2**60}, "opening_wh"),
        ({"closing_why": 5}, "closing_why"),
        ({"photo_sha256": "AB" * 32}, "photo_sha256"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(WireError, match=named):
        read_replacement(TOLD | change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"device": "em-9"}, "em-9"),
        ({"closing_wh": None}, "closing reading"),
        ({"closing_why": "dark"}, "not both"),
    ],
)
async def test_a_meter_needs_a_closing_reading_or_why_there_is_none(
    core: Core, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(WireError, match=named):
        await exchange_of(core).take(TOLD | change)
    assert set(core.gates.commissioned) == {"KM1", "KM2"}


@pytest.mark.parametrize(
    ("device", "unarmed"),
    [("em-1", {"KM1"}), ("em-2", {"KM2"}), ("io-1", {"KM1", "KM2"}), ("em-0", set())],
    ids=["meter that proves one", "meter that proves the other", "relay of both", "meter that proves none"],
)
async def test_outputs_of_the_device_are_unarmed_until_commissioned_again(
    core: Core, device: str, unarmed: set[str]
) -> None:
    answer = await exchange_of(core).take(TOLD | {"device": device})
    assert set(core.gates.commissioned) == {"KM1", "KM2"} - unarmed
    assert all(name in answer for name in unarmed)
    for name in unarmed:
        assert core.gates.unusable(name) == "not commissioned"
    rows = await core.ledger.read("SELECT output FROM commissioned")
    assert {r[0] for r in rows} == {"KM1", "KM2"} - unarmed, "after a restart too"
    event = (await core.ledger.read("SELECT payload FROM record WHERE ty='event' ORDER BY idx DESC LIMIT 1"))[0][0]
    doc = json.loads(bytes(event))
    assert (doc["ev"], doc["obj"], doc["now"]) == ("replaced", device, "55555555")
    assert doc["detail"]["outputs"] == sorted(unarmed)
    assert doc["detail"]["person"] == "A. Serik"
    if unarmed:
        await core.act(core.commissioning(*sorted(unarmed)), core.people.dispatcher, core.people.engineer)
        assert set(core.gates.commissioned) == {"KM1", "KM2"}


async def test_it_arrives_through_the_inbox(core: Core, tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, core.gates, lambda: core.keys, exchange_of(core).take)
    for name, doc, good in (("a", TOLD, True), ("b", TOLD | {"serial": ""}, False)):
        path = tmp_path / "inbox" / f"{name}.json"
        path.write_text(json.dumps(doc))
        await inbox._take(path)
        answer = json.loads(path.with_suffix(".result").read_text())
        assert answer["ok"] is good, answer
    assert "KM2" not in core.gates.commissioned


# the meter's points --------------------------------------------------------------------------------------------------


class _NoGates:
    """Nothing is commissioned here."""

    def __init__(self) -> None:
        self.commissioned: dict[str, Any] = {}
        self.switches: dict[str, Any] = {}
        self.check = type("Check", (), {"outputs": ()})()


def told_to(kit: MeteringKit) -> Exchange:
    made = Exchange(kit.site, kit.ledger, cast("Any", _NoGates()), kit.closer)
    made.load()
    return made


@pytest.mark.parametrize("device", ["em-0", "em-2"], ids=["no serial number to read", "serial number read"])
@pytest.mark.parametrize("restart", [False, True])
async def test_the_new_meter_is_bound_with_what_the_person_said(tmp_path: Path, device: str, restart: bool) -> None:
    """A meter without a serial number would go on unnoticed if its register happened to fit."""
    point = "M" + device[-1]
    async with metering(tmp_path) as kit:
        for n in range(3):
            await kit.close_slot(START_S + n * SLOT)
        before = (await kit.records(f"mp:{point}"))[-1]
        kit.faults.set("exchange", device, serial="55555555", reading_wh=20_000_000)
        await told_to(kit).take(TOLD | {"device": device})
        if restart:
            await kit.shut()
            await kit.boot()
            told_to(kit)
        for n in range(3, 6):
            await kit.close_slot(START_S + n * SLOT)
        records = await kit.records(f"mp:{point}")
        assert [(r["ty"], r.get("why")) for r in records[2:]] == [
            ("interval", None),
            ("gap", "SERIAL_CHANGED"),
            ("bind", None),
            ("interval", None),
            ("interval", None),
        ]
        swap = records[4]["swap"]
        assert (swap["person"], swap["closing_wh"], swap["opening_wh"]) == ("A. Serik", 4_321_000, 0)
        assert swap["since"] == before["rt1"], "from here on nothing was metered"
        assert swap["to"] == records[5]["rt0"]
        assert "bridge_wh" not in records[5]
        assert kit.ledger.meta(f"swap:{point}") == "", "told once, bound once"
        walk = await kit.verified(point, START_S, START_S + 5 * SLOT)
        assert walk.errors == []


async def test_a_meter_that_was_seen_to_be_another_already_is_not_bound_twice(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        for n in range(2):
            await kit.close_slot(START_S + n * SLOT)
        kit.faults.set("exchange", "em-2", serial="55555555", reading_wh=1000)
        await kit.close_slot(START_S + 2 * SLOT)
        answer = await told_to(kit).take(TOLD)
        assert "bound already" in answer
        await kit.close_slot(START_S + 3 * SLOT)
        assert [r["ty"] for r in await kit.records("mp:M2")] == ["bind", "interval", "gap", "bind", "interval"]
