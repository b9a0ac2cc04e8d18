"""A person reads a display: the registers are read at once, both are evidence, and a signature is checked."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from agent.inbox import Inbox
from agent.metering.spot import Spots, read_told
from grid.acts import sign_act, spot_act
from tests.unit.agent_kit import running_core
from tests.unit.metering_kit import SLOT, START_S, MeteringKit, metering
from wire.energy import primary_wh
from wire.errors import WireError
from wire.keys import SigningKey, b64
from wire.registry import Issuer, KeysDocument, Person, RegisteredSite, Revocation

DAY_MS = 86_400_000
TOLD: dict[str, Any] = {
    "ty": "spot", "point": "M2", "who": "A. Serik", "organisation": "KEGOC", "role": "inspector", "seen": 1,
    "display_wh": 0, "display_lsb_wh": 10, "seals": ["0012"], "photo_sha256": "ab" * 32,
}  # fmt: skip


def register(kit: MeteringKit, key: SigningKey, **changes: Any) -> KeysDocument:
    now = kit.clock.now_ms()
    issuer: dict[str, Any] = {
        "kid": key.kid, "key": key.public.text, "person": "insp", "rights": ("inspect",),
        "sites": (kit.site.site.id,), "valid_from": now - DAY_MS, "valid_to": now + DAY_MS,
    } | changes  # fmt: skip
    person = Person(id="insp", name="Б. Инспектор", organisation="КЭР", role="regulator")
    site = RegisteredSite(id=kit.site.site.id, zone="z", contracted_w=1, emergency_w=0, slot_s=900)
    return KeysDocument(
        v=1, version=1, issued_at=now, persons=(person,), issuers=(Issuer(**issuer),), sites=(site,)
    )  # fmt: skip


def act_of(kit: MeteringKit, key: SigningKey, **changes: Any) -> str:
    now = kit.clock.now_ms()
    seen = {
        "site": kit.site.site.id, "epoch": kit.ledger.epoch, "point": "M2", "seen": now - 5_000,
        "display_wh": 1_234_000, "display_lsb_wh": 1000, "seals": ["0012", "0013"],
    } | changes  # fmt: skip
    return b64(sign_act(spot_act(seen, now_ms=now), key).encode())


async def take(kit: MeteringKit, doc: dict[str, Any], keys: KeysDocument | None = None) -> str:
    spots = Spots(kit.ledger, kit.closer, kit.clock, lambda: keys)
    task = asyncio.ensure_future(spots.take(doc))
    await asyncio.sleep(0.05)  # the register of acts is asked on the ledger's own thread
    await kit.time.drive(_quiet(task), lambda: 1)
    return task.result()


async def _quiet(task: asyncio.Future[str]) -> None:
    await asyncio.wait({task})


async def ready(kit: MeteringKit) -> None:
    for i in (1, 2):
        await kit.close_slot(START_S + i * SLOT)
    await kit.go_to(START_S + 2 * SLOT + 200)


async def test_registers_and_display_are_recorded_together(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await ready(kit)
        answer = await take(kit, TOLD | {"seen": kit.clock.now_ms() - 60_000, "display_wh": 77_000})
        records = await kit.records("mp:M2")
    (bind,) = [r for r in records if r["ty"] == "bind"]
    (spot,) = [r for r in records if r["ty"] == "spot"]
    energy = primary_wh(spot["reg"]["energy_import_wh"], bind["pts"]["energy_import_wh"])
    assert energy is not None
    assert spot["diff_wh"] == math.floor(energy) - 77_000
    assert spot["raw"]
    assert spot["act"] is None
    assert "UNSIGNED" in answer
    assert spot["seals"] == ["0012"]


async def test_the_verifier_places_it_between_the_slots_around_it(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await ready(kit)
        kit.step()
        shown = round(next(r for r in kit.plant.registers.values() if r.point.id == "M2").imported.reading)
        await take(kit, TOLD | {"seen": kit.clock.now_ms(), "display_wh": shown, "display_lsb_wh": 10})
        await kit.close_slot(START_S + 3 * SLOT)
        walk = await kit.verified("M2", START_S + SLOT, START_S + 3 * SLOT)
    assert (walk.errors, walk.doubts) == ([], [])
    (spot,) = walk.spots.found
    assert (spot.placed, spot.agrees, spot.independent) == (True, True, False)


async def test_a_person_of_the_register_signs_it(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await ready(kit)
        key = SigningKey.generate()
        act, keys = act_of(kit, key), register(kit, key)
        answer = await take(kit, {"ty": "spot", "act": act}, keys)
        (spot,) = [r for r in await kit.records("mp:M2") if r["ty"] == "spot"]
        assert "signed by both" in answer
        assert spot["act"] == act
        assert (spot["who"], spot["organisation"], spot["role"]) == ("Б. Инспектор", "КЭР", "regulator")
        assert spot["seals"] == ["0012", "0013"]
        with pytest.raises(WireError, match="already taken"):
            await take(kit, {"ty": "spot", "act": act}, keys)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rights": ("mode",)}, "no right to inspect"),
        ({"sites": ("other",)}, "no right at site"),
        ({"valid_to": 1_700_000_000_000, "valid_from": 1_600_000_000_000}, "not valid"),
    ],
)
async def test_a_person_without_the_right_is_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    async with metering(tmp_path) as kit:
        await ready(kit)
        key = SigningKey.generate()
        with pytest.raises(WireError, match=named):
            await take(kit, {"ty": "spot", "act": act_of(kit, key)}, register(kit, key, **change))
        assert [r for r in await kit.records("mp:M2") if r["ty"] == "spot"] == []


async def test_foreign_revoked_and_misdirected_acts_are_refused(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await ready(kit)
        key = SigningKey.generate()
        keys, act = register(kit, key), act_of(kit, key)
        with pytest.raises(WireError, match="act"):
            await take(kit, {"ty": "spot", "act": act_of(kit, SigningKey.generate())}, keys)
        with pytest.raises(WireError, match="no register"):
            await take(kit, {"ty": "spot", "act": act}, None)
        with pytest.raises(WireError, match="sign a new one"):
            await take(kit, {"ty": "spot", "act": act_of(kit, key, epoch="e9-00000000")}, keys)
        revoked = keys.model_copy(update={"revoked": (Revocation(kid=key.kid, at=1_700_000_000_000, reason="lost"),)})
        with pytest.raises(WireError, match="revoked"):
            await take(kit, {"ty": "spot", "act": act}, revoked)


async def test_it_arrives_through_the_inbox_and_not_as_a_plain_act(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        taken: list[dict[str, Any]] = []

        async def take_it(doc: Any) -> str:
            taken.append(doc)
            return "recorded"

        inbox = Inbox(tmp_path, core.gates, lambda: core.keys, requests={"spot": take_it})
        key = SigningKey.generate()
        seen = {"site": core.site.site.id, "epoch": core.ledger.epoch, "point": "M2", "seen": core.clock.now_ms()}
        act = sign_act(spot_act(seen | {"display_wh": 1, "display_lsb_wh": 1}, now_ms=core.clock.now_ms()), key)
        answers = []
        for name, raw in (("a", json.dumps(TOLD).encode()), ("b", act.encode())):
            path = tmp_path / "inbox" / f"{name}.json"
            path.write_bytes(raw)
            await inbox._take(path)
            answers.append(json.loads(path.with_suffix(".result").read_text()))
    assert [answer["ok"] for answer in answers] == [True, False]
    assert taken == [TOLD]
    assert "agent spot --act" in answers[1]["text"]


async def test_what_was_read_long_ago_or_where_no_meter_answers_is_not_recorded(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await ready(kit)
        now = kit.clock.now_ms()
        with pytest.raises(WireError, match="read the display again"):
            await take(kit, TOLD | {"seen": now - 2 * 3_600_000})
        with pytest.raises(WireError, match="read the display again"):
            await take(kit, TOLD | {"seen": now + 120_000})
        with pytest.raises(WireError, match="M9"):
            await take(kit, TOLD | {"seen": now, "point": "M9"})
        kit.faults.set("dead", "em-2")
        with pytest.raises(WireError, match="could not be read"):
            await take(kit, TOLD | {"seen": kit.clock.now_ms()})
        assert [r for r in await kit.records("mp:M2") if r["ty"] == "spot"] == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"who": ""}, "who"),
        ({"organisation": None}, "organisation"),
        ({"role": "x" * 101}, "role"),
        ({"display_wh": 1.5}, "display_wh"),
        ({"display_wh": -1}, "display_wh"),
        ({"display_wh": True}, "display_wh"),
        ({"display_lsb_wh": 0}, "display_lsb_wh"),
        ({"seen": "now"}, "seen"),
        ({"seals": "0012"}, "seals"),
        ({"seals": [7]}, "seals"),
        ({"photo_sha256": "zz"}, "photo_sha256"),
        ({"serial": ""}, "serial"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(WireError, match=named):
        read_told(TOLD | change)
