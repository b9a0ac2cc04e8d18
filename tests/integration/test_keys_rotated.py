"""Both keys of a running site are exchanged; the evidence stands at every moment, for central and for the verifier."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from site_kit import SITE, SiteKit, until
from soft_token import soft_token

from agent.ledger import Txn
from central.bundle import Period as Span
from central.bundle import build
from central.store.schema import records
from tizgin.cli import run
from verifier.metering import Period
from verifier.report import Report
from verifier.verify import verify
from wire.keys import SigningKey
from wire.logkeys import P256Key
from wire.registry import Epoch, RegisteredSite
from wire.rotation import KeyChange, read_change


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    kit = SiteKit(tmp_path, luxos=1, stock=1)
    await kit.start_plant()
    await kit.start_central()
    await kit.start_agent()
    try:
        yield kit
    finally:
        await kit.stop()


def site_with(kit: SiteKit, *epochs: Epoch) -> tuple[RegisteredSite, ...]:
    assert kit.central is not None
    document = kit.central.registers.document
    assert document is not None
    return (document.sites[0].model_copy(update={"epochs": epochs}),)


async def publish(kit: SiteKit, *epochs: Epoch) -> None:
    """The registrar signs, central takes it, the agent holds it."""
    assert kit.central is not None
    assert kit.app is not None
    await kit.central.take_register(kit.register(sites=site_with(kit, *epochs)))
    app = kit.app
    await until(lambda: app.register.version == kit.version, 10, "the register at the agent")


async def ask(kit: SiteKit, role: str) -> KeyChange:
    """As a person does it on the box."""
    out = kit.root / f"{role}.json"
    args = ["agent", "rotate", "--role", role, "--who", "D. Kim", "--records", "20", "--out", str(out)]
    code = await asyncio.to_thread(run, [*args, "--config", str(kit.site_file)])
    assert code == 0
    return read_change(out.read_bytes())


async def fill(kit: SiteKit, size: int) -> None:
    """Records until the log has so many; what a site writes in some hours."""
    app = kit.app
    assert app is not None
    while (await app.ledger.head())[0] < size:
        await app.ledger.commit(Txn().record("site", "event", {"ev": "tag", "obj": "F3", "now": "tagged"}))


async def judged(kit: SiteKit, begin: int) -> Report:
    """A bundle by central's own code, as the verifier sees it."""
    assert kit.central is not None
    key = SigningKey.from_pem(kit.paths.k_col.read_bytes())
    span = Span(begin, int(time.time()) // 10 * 10)
    registrar = {kit.registrar.kid: kit.registrar.public}

    def made(connection: Any) -> bytes:
        done = build(connection, SITE, span, key, registrar, tool="t", now_ms=time.time_ns() // 1_000_000)
        return done.data

    (kit.root / "b.zip").write_bytes(await kit.central.database.read(made))
    trust = {"v": 1, "registrar": [kit.registrar.public.text], "collector": [key.public.text]}
    (kit.root / "trust.json").write_text(json.dumps(trust))
    period = Period(span.first_s, span.last_s)
    return await asyncio.to_thread(verify, kit.root / "b.zip", trust_path=kit.root / "trust.json", period=period)


async def cosigned_beyond(kit: SiteKit, size: int) -> None:
    app = kit.app
    assert app is not None
    app.checkpointer.again()  # the end of the slot is not waited for
    await until(lambda: app.checkpointer.counters.cosigned_size > size, 40, f"a cosigned checkpoint above {size}")


async def stored(kit: SiteKit) -> list[tuple[bool | None, int]]:
    """How many records central holds by its verdict on them, once nothing is under way."""
    app = kit.app
    assert app is not None
    assert kit.central is not None
    for _ in range(200):
        if not await app.ledger.undelivered(0, 1):
            break
        await asyncio.sleep(0.05)
    query = sa.select(records.c.verified, sa.func.count()).group_by(records.c.verified)
    return [tuple(row) for row in await kit.central.database.read(lambda c: c.execute(query).all())]


async def test_evidence_stands_at_every_moment_of_a_change_of_both_keys(kit: SiteKit) -> None:
    app = kit.app
    assert app is not None
    begin = int(time.time()) // 10 * 10
    first = Epoch(epoch=kit.epoch, k_rec=kit.enrolment["k_rec"], k_log=kit.enrolment["k_log"])

    record = await ask(kit, "record")
    second = first.model_copy(update={"k_rec": record.new.text, "from_index": record.from_index})
    await publish(kit, first, second)
    await until(lambda: time.time() > begin + 11, 20, "a slot is over")
    await cosigned_beyond(kit, 0)
    assert (await judged(kit, begin)).errors == [], "registered, and not yet changed"

    await fill(kit, record.from_index + 3)
    assert app.ledger.key.public == record.new
    await cosigned_beyond(kit, record.from_index)
    assert (await judged(kit, begin)).errors == [], "changed, and the old key not yet closed"

    log = await ask(kit, "log")
    closed = first.model_copy(update={"to_index": record.from_index - 1})
    third = second.model_copy(update={"k_log": log.new.text, "from_index": log.from_index})
    await publish(kit, closed, second, third)
    await fill(kit, log.from_index + 3)
    await cosigned_beyond(kit, log.from_index)
    await publish(kit, closed, second.model_copy(update={"to_index": log.from_index - 1}), third)
    report = await judged(kit, begin)
    assert report.errors == []
    assert report.records > record.from_index
    assert {verdict for verdict, _ in await stored(kit)} == {True}

    # The next start signs with both new keys, and only they are left.
    await kit.stop_agent()
    await kit.start_agent()
    assert kit.app is not None
    assert (kit.app.ledger.key.public, kit.app.checkpointer.key.public) == (record.new, log.new)
    assert sorted(p.name for p in (kit.site_dir / "state").glob("*.key")) == ["log.key", "rec.key", "tls.key"]
    size, _ = await kit.app.ledger.head()
    await cosigned_beyond(kit, size)
    assert (await judged(kit, begin)).errors == []


async def test_a_site_whose_log_key_is_in_a_token_and_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token → checkpoints → central cosigns → bundle → verdict; the token is pulled; the key moves into a file."""
    soft = soft_token(tmp_path / "hsm", monkeypatch)
    kit = SiteKit(tmp_path, luxos=1, stock=1, doc_changes={"keys": soft.settings()})
    begin = int(time.time()) // 10 * 10
    try:
        await kit.start_plant()
        await kit.start_central()
        await kit.start_agent()
        app = kit.app
        assert app is not None
        assert isinstance(app.checkpointer.key.public, P256Key)
        first = Epoch(epoch=kit.epoch, k_rec=kit.enrolment["k_rec"], k_log=kit.enrolment["k_log"])
        await cosigned_beyond(kit, 0)

        soft.pull()
        size, _ = await app.ledger.head()
        await fill(kit, size + 5)
        app.checkpointer.again()
        await until(lambda: "log_key_unavailable" in app.reports.alarms(), 30, "the alarm")
        size, signed = (await app.ledger.head())[0], app.checkpointer.counters.signed
        await fill(kit, size + 5)
        assert app.checkpointer.counters.signed == signed
        soft.put_back()
        await cosigned_beyond(kit, size)
        await until(lambda: "log_key_unavailable" not in app.reports.alarms(), 30, "the end of the alarm")

        out = kit.root / "to-file.json"
        args = ["agent", "rotate", "--role", "log", "--to", "file", "--who", "D. Kim", "--records", "20"]
        assert await asyncio.to_thread(run, [*args, "--out", str(out), "--config", str(kit.site_file)]) == 0
        change = read_change(out.read_bytes())
        second = first.model_copy(update={"k_log": change.new.text, "from_index": change.from_index})
        await publish(kit, first, second)
        await fill(kit, change.from_index + 3)
        await cosigned_beyond(kit, change.from_index)
        done = time.time() // 10 * 10
        await until(lambda: time.time() > done + 11, 20, "the slot with the change is over")
        await publish(kit, first.model_copy(update={"to_index": change.from_index - 1}), second)
        report = await judged(kit, begin)
        assert report.errors == []
        assert report.records > change.from_index
        assert app.checkpointer.status()["in"] == "file"
        assert {verdict for verdict, _ in await stored(kit)} == {True}
    finally:
        await kit.stop()


async def test_central_that_lost_the_newest_register_judges_again_when_it_comes(kit: SiteKit) -> None:
    app = kit.app
    assert app is not None
    first = Epoch(epoch=kit.epoch, k_rec=kit.enrolment["k_rec"], k_log=kit.enrolment["k_log"])
    change = await ask(kit, "record")
    second = first.model_copy(update={"k_rec": change.new.text, "from_index": change.from_index})
    await publish(kit, first, second)
    # Central is set back to the register before, as by a backup: what the new key signs is unknown to it.
    assert kit.central is not None
    kit.central.registers._set(
        kit.central.registers.document.model_copy(update={"sites": site_with(kit, first)}),
        b"",  # type: ignore[union-attr]  # the kind is known here
    )
    await fill(kit, change.from_index + 5)
    assert {verdict for verdict, _ in await stored(kit)} == {True, False}
    await publish(kit, first, second)
    for _ in range(100):
        if {verdict for verdict, _ in await stored(kit)} == {True}:
            break
        await asyncio.sleep(0.05)
    assert {verdict for verdict, _ in await stored(kit)} == {True}
