"""Junk from a broker that was taken over: counted, bounded, and the next true order is as fast as ever."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from site_kit import SITE, SiteKit, now_ms, until

from agent.curtailment.reception import JUNK_PER_MIN
from wire.keys import SigningKey
from wire.names import topic
from wire.registry import sign_keys

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEEP = b"[" * 100_000 + b"]" * 100_000
JUNK: dict[str, bytes] = {
    "empty": b"",
    "bytes": bytes(range(256)) * 20,
    "not JSON": b"{]",
    "NaN": b'{"v":1,"at":NaN,"first":Infinity}',
    "huge number": b'{"v":1,"at":1' + b"0" * 5000 + b"}",
    "deep": DEEP,
    "list": b"[1,2,3]",
    "null": b"null",
    "text": b'"order"',
    "wrong types": json.dumps({"v": "1", "site": 7, "epoch": [], "at": -1, "streams": "all", "first": {}}).encode(),
    "lone surrogate": b'{"payloadType":"\\ud800","payload":"AA==","signatures":[]}',
    "large": b'{"payload":"' + b"A" * 240_000 + b'"}',
    "many signatures": json.dumps(
        {
            "payloadType": "application/vnd.tizgin.order.v1+json",
            "payload": "e30=",
            "signatures": [{"keyid": "0" * 16}] * 900,
        }
    ).encode(),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SiteKit]:
    made = await asyncio.to_thread(SiteKit, tmp_path_factory.mktemp("hostile"))
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def send(kit: SiteKit, name: str, payload: bytes, *, retain: bool = False) -> None:
    """As whoever holds the collector's certificate."""
    assert kit.central is not None
    assert kit.central.link.publish(topic(SITE, name), payload, retain=retain)


async def quiet(kit: SiteKit) -> None:
    """Until the agent has taken what was sent before: a register it cannot miss comes after it."""
    app = kit.app
    assert app is not None
    assert kit.central is not None
    await kit.central.take_register(kit.register())
    version = kit.version
    await until(
        lambda: (
            app.register.document is not None
            and app.register.document.version == version
            and not app.uplink._orders.qsize()
        ),
        20,
        "all taken",
    )


async def record_count(kit: SiteKit) -> int:
    assert kit.app is not None
    return int((await kit.app.ledger.read("SELECT count(*) FROM record WHERE stream='cmd'"))[0][0])


@pytest.mark.parametrize("name", ["order", "commit", "want", "keys", "cosign", "cert"])
async def test_no_junk_on_any_topic_ends_the_agent_or_changes_anything(kit: SiteKit, name: str) -> None:
    app = kit.app
    assert app is not None
    await quiet(kit)
    document, live = app.register.document, dict(app.journal.live)
    committed = await app.ledger.read("SELECT count(*) FROM record WHERE committed=1")
    refused = app.uplink.refused_inbound + sum(app.reception.refused.values())
    for payload in JUNK.values():
        send(kit, name, payload)
    if name == "keys":
        await asyncio.sleep(1)
        assert app.register.document is document
    await quiet(kit)
    assert kit.agent_task is not None
    assert not kit.agent_task.done()
    assert app.journal.live == live
    assert not app.journal.held
    assert await app.ledger.read("SELECT count(*) FROM record WHERE committed=1") >= committed
    if name in {"order", "commit", "want", "keys"}:
        counted = app.uplink.refused_inbound + sum(app.reception.refused.values()) - refused
        assert counted == len(JUNK), "each is counted"
    assert app.uplink.control.connected.is_set()


async def test_a_thousand_junk_orders_leave_ten_records_and_the_true_one_after_them_is_taken_at_once(
    kit: SiteKit,
) -> None:
    app = kit.app
    assert app is not None
    before = kit.net_w()
    assert before is not None
    await quiet(kit)
    records = await record_count(kit)
    _, stranger = kit.order("limit", limit_w=1, signers=(SigningKey.generate(),))
    kinds = [*JUNK.values(), stranger]
    for number in range(1000):
        send(kit, "order", kinds[number % len(kinds)] if number % 50 == 0 else b"junk %d" % number)
    order, raw = kit.order("limit", limit_w=round(before * 0.7))
    sent = time.monotonic()
    await kit.post_order(raw)
    await until(lambda: order in app.journal.states, 20, "the true order")
    took = time.monotonic() - sent
    accepted = app.journal.live[order].doc.accepted_ms
    assert accepted is not None
    assert accepted <= 250, "from its arrival to the signed answer"
    assert took < 10
    junk = await record_count(kit) - records - 2
    assert junk <= 2 * JUNK_PER_MIN, "an answer and the order each"
    assert app.reception.unrecorded + app.uplink.dropped_inbound > 500, "the rest is counted"
    await kit.wait_state(order, "holding", within_s=40)
    _, release = kit.order("release", target=order)
    await kit.post_order(release)
    await kit.wait_state(order, "done", within_s=60)


async def test_a_register_that_is_older_or_of_another_signer_is_refused(kit: SiteKit) -> None:
    app = kit.app
    assert app is not None
    await quiet(kit)
    present = app.register.document
    assert present is not None
    stranger = SigningKey.generate()
    forged = sign_keys(present.model_copy(update={"version": present.version + 1000}), stranger)
    older = sign_keys(present.model_copy(update={"version": present.version - 1, "issuers": ()}), kit.registrar)
    same = sign_keys(present.model_copy(update={"issuers": ()}), kit.registrar)
    genuine = kit.register()
    flipped = genuine.replace(b'"sig":"', b'"sig":"A', 1)
    refused = app.uplink.refused_inbound
    for raw in (forged, older, same, flipped):
        send(kit, "keys", raw, retain=True)
    await until(lambda: app.uplink.refused_inbound >= refused + 2, 10, "refused")
    await quiet(kit)
    assert {i.kid for i in app.register.document.issuers} == {i.kid for i in present.issuers}  # type: ignore[union-attr]  # it has one
    assert kit.app is not None
    stored = kit.app.ledger.meta("keys")
    assert stored is not None


async def test_a_commit_for_what_was_never_written_marks_nothing(kit: SiteKit) -> None:
    app = kit.app
    assert app is not None
    await quiet(kit)
    (count,) = (await app.ledger.read("SELECT count FROM stream WHERE name='site'"))[0]
    strange = app.uplink.delivery.counters.strange_commits

    def commit(stream: str, last: int, **more: Any) -> bytes:
        body = {"stream": stream, "ranges": [{"first": 0, "last": last}], **more}
        return json.dumps({"v": 1, "site": SITE, "epoch": kit.epoch, "at": now_ms(), "streams": [body]}).encode()

    await app.ledger.mark_wanted("site", 0, 2**52)  # as if none had been confirmed
    for raw in (
        commit("site", count + 5),
        commit("mp:NOWHERE", 3),
        commit("bulk", 2**40, boot=app.bulk.boot),
        commit("site", count).replace(kit.epoch.encode(), b"e9-00000000"),
    ):
        send(kit, "commit", raw)
    await until(lambda: app.uplink.delivery.counters.strange_commits >= strange + 4, 10, "counted")
    rows = await app.ledger.read("SELECT count(*) FROM record WHERE stream='site' AND committed=1 AND n >= ?", count)
    assert rows[0][0] == 0
    assert app.reports.figures()["strange_commits_total"] >= strange + 4


async def test_wants_without_end_are_bounded(kit: SiteKit) -> None:
    app = kit.app
    assert app is not None
    want = {"v": 1, "site": SITE, "epoch": kit.epoch, "stream": "site", "first": 0, "last": 2**53 - 1}
    for _ in range(200):
        send(kit, "want", json.dumps(want).encode())
    await quiet(kit)
    before = kit.net_w()
    assert before is not None
    order, raw = kit.order("limit", limit_w=round(before * 0.9))
    await kit.post_order(raw)
    await until(lambda: order in app.journal.live, 5, "order taken")
    assert (app.journal.live[order].doc.accepted_ms or 0) <= 250
    _, release = kit.order("release", target=order)
    await kit.post_order(release)
    await kit.wait_state(order, "done", "cancelled", within_s=60)
