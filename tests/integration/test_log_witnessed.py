"""The site's log, signed at the edge and cosigned by central, on a real broker."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from site_kit import SITE, SiteKit, until

from agent.errors import LedgerError
from central.store.schema import leaves, notes, splits, witnessed
from wire.checkpoints import Checkpoint, anchor_of, cosignatures, log_key, open_checkpoint
from wire.keys import VerifyKey
from wire.merkle import Frontier, check_inclusion
from wire.messages import CheckpointMessage
from wire.policy import parse_policy


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    kit = SiteKit(tmp_path / "log", luxos=2, stock=1)
    await kit.start()
    try:
        yield kit
    finally:
        await kit.stop()


async def rows(kit: SiteKit, query: sa.Select[Any]) -> list[Any]:
    assert kit.central is not None
    return list(await kit.central.database.read(lambda c: c.execute(query).all()))


async def test_checkpoints_are_cosigned_kept_and_anchor_what_is_written_after_them(kit: SiteKit) -> None:
    app = kit.app
    assert app is not None
    await until(lambda: app.checkpointer.counters.cosigned_size > 0, 40, "a cosigned checkpoint")
    first = app.checkpointer.counters.cosigned_size
    await until(lambda: app.checkpointer.counters.cosigned_size > first, 40, "the next one")

    size, note = (await app.ledger.read("SELECT size, note FROM cosigned ORDER BY size LIMIT 1"))[0]
    anchored = await app.ledger.read("SELECT idx, payload FROM record WHERE idx > ? ORDER BY idx", first)
    anchor = anchor_of(bytes(note), size)
    assert any(f'"a":{{"h":"{anchor["h"]}","s":{size}}}'.encode() in bytes(payload) for _, payload in anchored)

    raw = bytes((await app.ledger.read("SELECT note FROM cosigned ORDER BY size DESC LIMIT 1"))[0][0])
    origin = app.checkpointer.origin
    checkpoint, parsed = open_checkpoint(raw, [log_key(origin, VerifyKey.from_text(kit.k_log).raw)])
    policy = parse_policy(kit.policy)
    assert policy.satisfied(cosignatures(parsed, policy.keys))

    async def all_leaves() -> list[bytes]:
        query = sa.select(leaves.c.hash).where(leaves.c.site == SITE).order_by(leaves.c.idx)
        return [bytes(row.hash) for row in await rows(kit, query)]

    deadline = asyncio.get_running_loop().time() + 30
    while len(found := await all_leaves()) < checkpoint.size:
        assert asyncio.get_running_loop().time() < deadline, "central holds every leaf"
        await asyncio.sleep(0.2)
    tree = Frontier()
    tree.extend(found[: checkpoint.size])
    assert tree.root() == checkpoint.root, "central can compute the root that the site signed"
    idx = 3
    check_inclusion(
        found[idx], idx, checkpoint.size, await app.ledger.inclusion(idx + 1, checkpoint.size), checkpoint.root
    )
    stored = await rows(kit, sa.select(notes.c.note).where(notes.c.size == checkpoint.size))
    assert parsed.text.encode() in {bytes(row.note).rpartition(b"\n\n")[0] + b"\n" for row in stored}
    kept = [r["detail"]["note"] for r in await kit.records("event") if r["ev"] == "cosigned"]
    assert bytes(note).decode() in kept, "who holds the records holds the notes they are anchored to"


async def test_a_ledger_put_back_to_an_older_day_refuses_to_go_on(kit: SiteKit) -> None:
    app = kit.app
    assert app is not None
    await until(lambda: app.checkpointer.counters.cosigned_size > 0, 40, "a cosigned checkpoint")
    await kit.stop_agent()
    folder = kit.site_dir / kit.site.agent.state_dir
    image = kit.root / "image.db"
    shutil.copyfile(folder / "ledger.db", image)
    await kit.start_agent()
    app = kit.app
    assert app is not None
    before = app.checkpointer.counters.cosigned_size
    await until(lambda: app.checkpointer.counters.cosigned_size > before, 40, "more history")
    await kit.stop_agent()
    shutil.copyfile(image, folder / "ledger.db")
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(LedgerError, match="not what its own log has signed"):
        await kit.start_agent()
    kit.agent_task = None


async def test_a_new_ledger_says_where_the_one_before_ended(kit: SiteKit) -> None:
    app = kit.app
    assert app is not None
    await until(lambda: app.checkpointer.counters.cosigned_size > 0, 40, "a cosigned checkpoint")
    before = app.ledger.epoch
    await kit.stop_agent()
    held = (await rows(kit, sa.select(witnessed)))[0]
    folder = kit.site_dir / kit.site.agent.state_dir
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (folder / name).unlink(missing_ok=True)
    await kit.start_agent()
    app = kit.app
    assert app is not None
    assert app.ledger.epoch != before

    async def links() -> list[Any]:
        found = await app.ledger.read("SELECT payload FROM record WHERE stream='site' AND ty='event'")
        docs = [json.loads(bytes(payload)) for (payload,) in found]
        return [doc["detail"] for doc in docs if doc["ev"] == "epoch_link"]

    deadline = asyncio.get_running_loop().time() + 20
    while not (told := await links()):
        assert asyncio.get_running_loop().time() < deadline, "the new epoch names the old one"
        await asyncio.sleep(0.1)
    assert [(d["epoch"], d["size"], d["root"]) for d in told] == [(before, held.size, bytes(held.root).hex())]


async def test_a_second_history_is_refused_and_kept_as_proof(kit: SiteKit) -> None:
    """Whoever holds K_log and K_rec can sign another history; the witness has seen the first one."""
    app, central = kit.app, kit.central
    assert app is not None
    assert central is not None
    await until(lambda: app.checkpointer.counters.cosigned_size > 0, 40, "a cosigned checkpoint")
    held = (await rows(kit, sa.select(witnessed)))[0]
    forged = Checkpoint(app.checkpointer.origin, int(held.size), b"\x07" * 32).sign(app.checkpointer.key)
    message = CheckpointMessage(
        site=SITE, epoch=app.ledger.epoch, note=forged.encode().decode(), submit=True, first=int(held.size)
    )
    await app.uplink.publish("checkpoint", message)
    deadline = asyncio.get_running_loop().time() + 20
    while not (proof := await rows(kit, sa.select(splits))):
        assert asyncio.get_running_loop().time() < deadline, "the second history is kept"
        await asyncio.sleep(0.1)
    assert bytes(proof[0].note) == forged.encode()
    after = (await rows(kit, sa.select(witnessed)))[0]
    assert after.root != b"\x07" * 32
