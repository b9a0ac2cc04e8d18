"""Central and broker in a stranger's hands, with every key they hold: no order comes of it and no output moves.

Everything that can come down comes down on every topic: genuine messages that were seen before, of this site and of
others, changed in every field, signed anew by the stranger, put together from parts, and given on another's topic.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.checkpoints import Checkpointer
from agent.outbox import BulkOutbox
from agent.register import Register
from agent.tls import TlsStore
from agent.uplink.link import Endpoint, Inbound
from agent.uplink.uplink import Facts, Uplink
from tests.unit.agent_kit import BASE_W, MACHINE_W, START_MS, Core, issuer, register, running_core, sealed
from wire import dsse
from wire.acts import encode_act
from wire.checkpoints import Checkpoint, cosign
from wire.dsse import Envelope, seal
from wire.keys import SigningKey
from wire.messages import Commit, Cosign, Range, StreamCommit, Want
from wire.names import DOWN, topic
from wire.notes import COSIGNATURE, NoteKey, parse_note
from wire.orders import Order, Restore, parse_order
from wire.registry import KeysDocument, sign_keys
from wire.states import OrderState

SITE = "kz-small-1"
S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)
REGISTRAR, K_LOG, K_WIT, K_COL = (SigningKey.generate() for _ in range(4))
WITNESS = NoteKey("so.example", COSIGNATURE, K_WIT.public.raw)
POLICY = f"witness so {WITNESS.text}\nquorum so\n"


@dataclass
class Held:
    """An agent's core with its inbound side, and every message that a true central once carried to it."""

    core: Core
    uplink: Uplink
    register: Register
    pen: Checkpointer
    past: dict[str, bytes]
    version: int

    async def give(self, name: str, payload: bytes, *, retained: bool = False) -> None:
        """A message comes down, as the connection hands it over."""
        self.uplink._receive(Inbound(topic(SITE, name), payload, retained))
        if self.uplink._inbox.qsize() + self.uplink._orders.qsize() > 50:
            await self.taken()

    async def taken(self) -> None:
        """All that came down was taken: the next true register comes after it on the same queue."""
        self.version += 1
        self.uplink._receive(Inbound(topic(SITE, "keys"), self.keys(), False))
        await really(lambda: self.register.version == self.version and not self.uplink._orders.qsize())

    async def order(self, raw: bytes) -> None:
        """A true order comes down, and is decided."""
        await self.give("order", raw)
        await really(lambda: parse_order(raw).order.id in self.core.journal.states)

    def keys(self, key: SigningKey = REGISTRAR, **changes: Any) -> bytes:
        people = self.core.people
        issuers = (
            issuer(people.dispatcher, "aru"),
            issuer(people.second, "bek"),
            issuer(people.engineer, "dana", rights=("mode", "commission")),
        )
        document = register(people, **({"version": self.version, "policy": POLICY, "issuers": issuers} | changes))
        return sign_keys(document, key)

    async def what_stands(self) -> dict[str, Any]:
        """Everything that no stranger may change."""
        core = self.core
        return {
            "writes": list(core.plant.writes),
            "held": dict(core.journal.held),
            "live": {o.id: (o.state, o.doc.released_by, o.doc.target_w) for o in core.journal.live.values()},
            "orders": await core.ledger.read("SELECT id, state FROM orders ORDER BY id"),
            "issuers": self.register.document.issuers if self.register.document else None,
            "mode": core.gates.mode,
            "commissioned": await core.ledger.read("SELECT output, act_id FROM commissioned ORDER BY output"),
            "cosigned": await core.ledger.read("SELECT size, note FROM cosigned"),
            "split": self.pen.counters.split,
            "time": core.trusted.low_ms() // 60_000,
        }


async def really(condition: Callable[[], object]) -> None:
    """Wait in the tests' own time; the plant's stands still."""
    deadline = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Held]:
    async with running_core(tmp_path) as core:
        made = await wire_up(core, tmp_path)
        tasks = [asyncio.create_task(made.uplink._dispatch(q)) for q in (made.uplink._orders, made.uplink._inbox)]
        try:
            await made.taken()
            core.keys = made.register.document
            # A past to replay: an order that was carried out and released, and one that holds now.
            for name in ("finished", "holding"):
                order = core.order("limit", limit_w=50_000, restore=AT_ONCE)
                made.past[name] = sealed(order, core.people.dispatcher)
                await made.order(made.past[name])
                await core.until_state(core.journal.live[order.id], S.HOLDING)
                if name == "finished":
                    release = core.order("release", target=order.id)
                    made.past["release"] = sealed(release, core.people.dispatcher)
                    await made.order(made.past["release"])
                    await core.until(lambda: not core.journal.live)
            core.plant.forbidden = True
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await made.uplink.delivery.bulk.close()


async def wire_up(core: Core, folder: Path) -> Held:
    books = Register(SITE, {REGISTRAR.kid: REGISTRAR.public}, core.ledger, core.trusted)

    async def publish(_message: object) -> None:
        """Nobody hears."""

    pen = Checkpointer(SITE, core.ledger, K_LOG, core.clock, 900, lambda: books.policy, publish, core.trusted.raise_to)
    await pen.make()
    uplink = Uplink(
        site=SITE,
        endpoint=Endpoint("mqtts://127.0.0.1:1", "ca.pem", "site.pem", "tls.key"),
        tls=TlsStore(folder, *(folder / name for name in ("ca.pem", "site.pem", "tls.key")), SITE),
        ledger=core.ledger,
        bulk=BulkOutbox(folder / "bulk.db", boot=core.ledger.boot, max_bytes=10**6),
        clock=core.clock,
        slot_s=900,
        backfill_bytes_s=10_000,
        facts=Facts("test", lambda: core.gates.mode, True, "0" * 64, lambda: books.version, lambda: None),
        on_order=core.reception.take,
        on_keys=books.take,
        checkpointer=pen,
    )
    return Held(core, uplink, books, pen, {}, 0)


# what comes down -----------------------------------------------------------------------------------------------------


def opened(raw: bytes) -> Envelope:
    return dsse.open_envelope(raw, expected_type=json.loads(raw)["payloadType"])


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return f"{value[:-1]}{'0' if value[-1:] != '0' else '1'}"
    if isinstance(value, list):
        return [*value, value[0]] if value else ["x"]
    return {}


def tampered(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """A signed envelope with each field of its payload changed or left out, and its signature kept."""
    outer = opened(raw)
    body = json.loads(outer.payload)
    for name in body:
        for what, doc in (
            ("changed", body | {name: changed(body[name])}),
            ("left out", {k: v for k, v in body.items() if k != name}),
        ):
            payload = json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()
            yield f"{name} {what}", Envelope(outer.payload_type, payload, outer.signatures).encode()
    yield (
        "a field more",
        Envelope(
            outer.payload_type, json.dumps(body | {"zz": 1}, separators=(",", ":")).encode(), outer.signatures
        ).encode(),
    )


def forged(core: Core, order: Order) -> Iterator[tuple[str, bytes]]:
    """An order as the stranger would like it, under every key he has, and under signatures of others."""
    payload, mine = order.encode(), core.people.dispatcher
    yield "the collector's key", sealed(order, K_COL)
    yield "the site's own log key", sealed(order, K_LOG)
    yield "the site's own record key", sealed(order, core.key)
    yield "a witness's key", sealed(order, K_WIT)
    yield "the registrar's key", sealed(order, REGISTRAR)
    yield "an engineer without the right", sealed(order, core.people.engineer)
    strange = SigningKey.generate().sign(dsse.pae(dsse.ORDER_TYPE, payload))
    yield "a dispatcher's name, a stranger's hand", Envelope(dsse.ORDER_TYPE, payload, ((mine.kid, strange),)).encode()
    for kind in (dsse.ACT_TYPE, dsse.KEYS_TYPE, dsse.RECORD_TYPE, dsse.DECLARATION_TYPE, dsse.MANDATE_TYPE):
        signature = mine.sign(dsse.pae(kind, payload))
        yield f"signed as {kind}", Envelope(dsse.ORDER_TYPE, payload, ((mine.kid, signature),)).encode()
        yield f"given as {kind}", seal(kind, payload, mine).encode()
    yield "no signature", json.dumps({"payloadType": dsse.ORDER_TYPE, "payload": "e30=", "signatures": []}).encode()


def stolen(core: Core, past: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Signatures and whole messages of other times, sites and lives."""
    people = core.people
    for name, raw in past.items():
        yield f"again: {name}", raw
        outer = opened(raw)
        yield f"again, in other bytes: {name}", json.dumps(json.loads(outer.encode()), indent=1).encode()
        for other, there in past.items():
            if other != name:
                mixed = Envelope(outer.payload_type, outer.payload, opened(there).signatures)
                yield f"{name} under the signature of {other}", mixed.encode()
    holding = parse_order(past["holding"]).order.id
    for what, changes in {
        "another site": {"site": "kz-other-1"},
        "another life of the ledger": {"epoch": "e9-0badcafe"},
        "before this ledger": {"issued_at": START_MS - 10**8, "execute_by": START_MS + 10**7},
        "too late": {"issued_at": START_MS, "execute_by": START_MS + 1, "expires_at": START_MS + 2},
        "of tomorrow": {"issued_at": core.clock.now_ms() + 86_400_000, "execute_by": core.clock.now_ms() + 10**8},
    }.items():
        for action in ("limit", "release"):
            more = {"target": holding} if action == "release" else {}
            made = core.order(action, limit_w=None if more else 36_000, restore=AT_ONCE, **more)
            yield f"{action}, {what}", sealed(made.model_copy(update=changes), people.dispatcher)
    late = core.order("release", target=holding, issued_at=core.clock.now_ms() - 700_000)
    yield "a release that was kept for over ten minutes", sealed(late, people.dispatcher)
    low = core.order("limit", limit_w=36_000).model_copy(update={"seq": 0})
    yield "a number that was used", sealed(low, people.dispatcher)


def others(held: Held) -> Iterator[tuple[str, bytes]]:
    """What is no order: acts, registers, cosignatures, commits and wants, none of them of whom they should be."""
    core, version = held.core, held.version + 1000
    people = core.people
    act = core.mode_act("monitor")
    yield "an act of two persons", seal(dsse.ACT_TYPE, encode_act(act), people.dispatcher, people.engineer).encode()
    evil = SigningKey.generate()
    owned = register(people, version=version, policy=POLICY, issuers=(issuer(evil, "aru"),))
    for who, key in (("the collector", K_COL), ("a dispatcher", people.dispatcher), ("a stranger", evil)):
        yield f"a register by {who}", sign_keys(owned, key)
    yield "an older register", held.keys(version=1, issuers=(issuer(evil, "aru"),))
    yield "another register of this version", held.keys(issuers=(issuer(evil, "aru"),))
    real = opened(held.keys())
    grown = real.payload.replace(b'"version":%d' % held.version, b'"version":%d' % version)
    assert grown != real.payload
    yield "a register with another number", Envelope(real.payload_type, grown, real.signatures).encode()
    yield from (("a cosignature", m) for m in cosigns(held))
    said = {"site": SITE, "epoch": core.ledger.epoch}
    for stream, first, last in (("site", 0, 2**40), ("mp:NOWHERE", 0, 5), ("bulk", 0, 2**40)):
        part = StreamCommit(stream=stream, ranges=(Range(first=first, last=last),))
        yield "a commit", Commit(**said, at=2**50, streams=(part,)).encode()
        yield "a want", Want(**said, stream=stream, first=first, last=last).encode()
    yield "a want of the log", Want(**said, stream="log", first=0, last=2**50).encode()


def cosigns(held: Held) -> Iterator[bytes]:
    core, name = held.core, f"tizgin/{SITE}/{held.core.ledger.epoch}"
    size = core.ledger.read_now("SELECT max(size) FROM checkpoint")[0][0]
    (row,) = core.ledger.read_now("SELECT note FROM checkpoint WHERE size = ?", size)
    text = parse_note(bytes(row[0])).text
    said = {"site": SITE, "epoch": core.ledger.epoch, "witness": "so.example", "size": 2**40, "of_size": size}
    future = 2**33
    for line in (
        cosign(text, "so.example", K_COL, future),
        cosign(text, "so.example", SigningKey.generate(), future),
        cosign(Checkpoint(name, size, b"\x01" * 32).text, "so.example", K_WIT, future),
        cosign(Checkpoint(f"tizgin/{SITE}/e9-0badcafe", size, b"\x01" * 32).text, "so.example", K_WIT, future),
    ):
        yield Cosign(**said, lines=line.line()).encode()
    for key in (K_COL, K_WIT, SigningKey.generate()):
        note = Checkpoint(name, 2**40, b"\x02" * 32).sign(key).encode().decode()
        yield Cosign(**said, latest=note, error="bad_proof", text="x" * 500).encode()


def everything(held: Held) -> dict[str, bytes]:
    core = held.core
    found: dict[str, bytes] = {}
    for number, (name, raw) in enumerate(stolen(core, held.past)):
        found[f"{number} {name}"] = raw
    for name in ("holding", "release"):
        found |= {f"{name}: {what}": raw for what, raw in tampered(held.past[name])}
    holding = parse_order(held.past["holding"]).order.id
    wishes = {
        "release": core.order("release", target=holding, restore=AT_ONCE),
        "release all": core.order("release", target="all", restore=AT_ONCE),
        "trip": core.order("emergency_trip"),
        "stop": core.order("stop"),
        "a loose limit": core.order("limit", limit_w=ALL_W, supersedes=holding),
        "cancel": core.order("cancel", target=holding),
    }
    for name, wish in wishes.items():
        found |= {f"{name}: {what}": raw for what, raw in forged(core, wish)}
    for number, (name, raw) in enumerate(others(held)):
        found[f"other {number} {name}"] = raw
    return found


# the tests -----------------------------------------------------------------------------------------------------------


async def test_nothing_that_a_stranger_sends_on_any_topic_changes_anything(held: Held) -> None:
    core = held.core
    messages = everything(held)
    assert len(messages) > 200
    before = await held.what_stands()
    for name in DOWN:
        for raw in messages.values():
            await held.give(name, raw)
            if name != "order":
                await held.give(name, raw, retained=True)
        await held.taken()
        await core.pass_time(3)
        assert await held.what_stands() == before, name
    assert held.uplink.dropped_inbound == 0, "each was looked at"
    # And the true word still counts.
    core.plant.forbidden = False
    (holding,) = core.journal.live
    await held.order(sealed(core.order("release", target=holding, restore=AT_ONCE), core.people.dispatcher))
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_a_retained_order_is_refused_even_where_it_is_new_and_true(held: Held) -> None:
    before = await held.what_stands()
    for action in ("limit", "release"):
        fields = {"target": "all"} if action == "release" else {"limit_w": 36_000}
        raw = sealed(held.core.order(action, **fields), held.core.people.dispatcher)
        await held.give("order", raw, retained=True)
    await held.taken()
    await held.core.pass_time(3)
    assert await held.what_stands() == before


async def test_each_message_is_answered_or_counted_and_the_journal_stays_small(held: Held) -> None:
    count = "SELECT count(*) FROM record"
    before = held.core.ledger.read_now(count)[0][0]
    refused = sum(held.core.reception.refused.values()) + held.uplink.refused_inbound
    messages = list(everything(held).values())
    for raw in messages:
        await held.give("order", raw)
    await held.taken()
    grown = held.core.ledger.read_now(count)[0][0] - before
    counted = sum(held.core.reception.refused.values()) + held.uplink.refused_inbound - refused
    assert counted >= len(messages) - 5, "all but what is heard again of an order that lives"
    assert grown <= 2 * 10 + held.version
    with contextlib.suppress(KeyError):
        assert held.core.reception.refused["format"] > 0


async def test_the_same_messages_move_everything_once_the_right_person_signs_them(held: Held) -> None:
    """The other way round: what was refused above was well-formed and would have moved something."""
    core = held.core
    core.plant.forbidden = False
    (holding,) = core.journal.live
    await held.order(sealed(core.order("emergency_trip"), core.people.dispatcher))
    await core.until(lambda: not any(s.closed for s in core.plant.switches.values()))
    await held.order(sealed(core.order("release", target="all", restore=AT_ONCE), core.people.dispatcher))
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W
    assert (await core.state(holding)) is S.DONE
    document: KeysDocument | None = held.register.document
    assert document is not None
