"""Balances, a signed spot reading and a verdict from the agent to the verifier, by the commands that people use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from site_kit import SITE, SiteKit, now_ms, site_doc, until
from witness_kit import OwnWitness, listening

from central.store.schema import intervals
from grid.acts import sign_act, spot_act
from tizgin.cli import run
from wire.keys import SigningKey
from wire.registry import Collector, Issuer, open_keys

SLOT_S = 10


class Kit(SiteKit):
    """Every branch has its meter, the boundary's has papers, the dispatcher may inspect."""

    witness: OwnWitness

    @property
    def policy(self) -> str:
        so = f"witness so {self.witness.note_key.text}\ngroup both all central so\nquorum both\n"
        return super().policy.replace("quorum central\n", so)

    def _issuer(self, key: SigningKey, person: str, rights: tuple[Any, ...], span: dict[str, int]) -> Issuer:
        return super()._issuer(key, person, (*rights, "inspect") if person == "dispatcher" else rights, span)

    @property
    def k_col(self) -> SigningKey:
        return SigningKey.from_pem(self.paths.k_col.read_bytes())

    def register(self, **changes: Any) -> bytes:
        collectors = (Collector(name="Central", key=self.k_col.public.text),)
        raw = super().register(collectors=collectors, **changes)
        self.witness.document, _ = open_keys(raw, [self.registrar.public])
        return raw


def metered() -> dict[str, Any]:
    """Changes of the site file."""
    doc = site_doc(luxos=2, stock=1, broker_port=1, registrar="")
    like = next(d for d in doc["devices"] if d["id"] == "em-1")
    more = [like | {"id": f"em-{n}", "unit": n + 1} for n in (3, 4)]
    points = [{"id": f"M{n}", "device": f"em-{n}", "node": node, "role": "technical", "owner": "site"}
              for n, node in ((3, "FANS"), (4, "CTRL"))]  # fmt: skip
    first = doc["metering_points"][0] | {"passport": {"accuracy_class": "1", "expires": "2099-12-31"}}
    return {
        "devices": [*doc["devices"], *more],
        "metering_points": [first, *doc["metering_points"][1:], *points],
    }


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    async with listening(tmp_path) as witness:
        Kit.witness = witness
        made = Kit(tmp_path / "kit", luxos=2, stock=1, doc_changes=metered())
        made.central_settings = made.central_settings.model_copy(update={"witnesses": (witness.settings,)})
        try:
            await made.start()
            yield made
        finally:
            await made.stop()


async def central(kit: Kit, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """``tizgin central …`` beside the running central."""
    config = kit.central_dir / "central.yaml"
    if not config.exists():
        body = kit.central_settings.model_dump(mode="json", by_alias=True, exclude_none=True)
        config.write_text(yaml.safe_dump(body, allow_unicode=True))
    capsys.readouterr()
    code = await asyncio.to_thread(run, ["central", *arguments, "--config", str(config)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_balance_and_spot_are_in_the_bundle_and_the_verifier_finds_grade_a(
    kit: Kit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app, simulation = kit.app, kit.simulation
    assert app is not None
    assert kit.central is not None
    assert simulation is not None

    def slots() -> int:
        with kit.central.database.engine.connect() as connection:  # type: ignore[union-attr] # asserted above
            return len(connection.execute(intervals.select().where(intervals.c.mp == "M0")).all())

    await until(lambda: slots() >= 2, 60, lambda: "two slots at central")
    shown = round(simulation.plant.registers["M0"].imported.reading)
    seen = {"site": SITE, "epoch": kit.epoch, "point": "M0", "seen": now_ms() - 500, "display_wh": shown}
    act = sign_act(spot_act(seen | {"display_lsb_wh": 100, "seals": ["0012"]}, now_ms=now_ms()), kit.dispatcher)
    (tmp_path / "act.json").write_bytes(act.encode())
    capsys.readouterr()
    handed = ["agent", "spot", "--act", str(tmp_path / "act.json"), "--config", str(kit.site_file)]
    code = await asyncio.to_thread(run, handed)
    told = capsys.readouterr()
    assert (code, "signed by both" in told.out) == (0, True), told.out + told.err
    before = slots()
    await until(lambda: slots() >= before + 3, 60, lambda: "three more slots at central")
    await asyncio.sleep(4)  # the last slots' checkpoint is cosigned, its event is at central

    rows = await kit.central.database.read(lambda c: c.execute(intervals.select()).all())
    ends = {mp: [r for r in rows if r.mp == mp] for mp in {r.mp for r in rows}}
    first = max(min(r.t0_s for r in of) for of in ends.values())
    last = min(max(r.t1_s for r in of) for of in ends.values()) - SLOT_S
    period = f"{first}/{last}"
    code, said = await central(kit, capsys, "vee", "--site", SITE, "--period", period, "--json")
    assert code in {0, 1}, said
    judged = json.loads(said)
    await kit.central.verdicts.offer_all()
    await until(lambda: kit.witness.store.held(f"tizgin/{SITE}/vee"), 10, lambda: "the verdict is witnessed")
    await asyncio.sleep(0.5)

    code, said = await central(
        kit, capsys, "bundle", "--site", SITE, "--period", period, "--out", str(tmp_path / "b.zip"), "--json"
    )
    assert code == 0, said
    trust = {"v": 1, "registrar": [kit.registrar.public.text], "collector": [json.loads(said)["collector"]]}
    (tmp_path / "trust.json").write_text(json.dumps(trust))
    verify = ["verify", str(tmp_path / "b.zip"), "--trust", str(tmp_path / "trust.json"), "--period", period]
    run([*verify, "--json", str(tmp_path / "r.json")])
    text = capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["errors"] == [], text
    count = (last - first) // SLOT_S
    assert report["balance"]["slots"] == count, text
    assert f"Balance        {count} slots" in text
    assert report["balance"]["over"] == 0, text
    assert report["balance"]["unknown"] <= 1, "a slot may be lost on a busy machine"
    (spot,) = report["points"]["M0"]["spots"]
    assert (spot["signed"], spot["organisation"]) == (True, "KEGOC")
    assert report["points"]["M0"]["grades"].get("A", 0) >= count - 1, text
    assert "A" not in report["points"]["M1"]["grades"]
    found = report["verdicts"]
    assert found["log"] == {
        "lines": 1 + len(judged["findings"]), "runs": 1, "checkpoints": 1, "witnessed": 1 + len(judged["findings"]),
    }  # fmt: skip
    assert [r["same_records"] for r in found["runs"]] == [True], text
    assert not [d for d in report["doubts"] if d.startswith(("UNWITNESSED", "SPOT"))]
