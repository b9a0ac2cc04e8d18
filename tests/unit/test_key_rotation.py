"""A key is exchanged at the place of the log that was named, by both keys and the register's word, or not at all."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent import rotation as rotation_module
from agent.checkpoints import Checkpointer
from agent.errors import LedgerError, LedgerForeign
from agent.identity import NEXT, enrolment, load_keys, make_keys
from agent.ledger import Ledger, Txn
from agent.ledger import store as store_module
from agent.rotation import Rotation, lacking, settle
from tests.unit.agent_kit import SimClock
from tizgin.cli import run
from wire.checkpoints import log_key, open_checkpoint
from wire.errors import BadNote, WireError
from wire.keys import SigningKey, VerifyKey
from wire.records import RecordLine
from wire.registry import Epoch, RegisteredSite
from wire.rotation import KeyChange, read_change

SITE = "kz-small-1"


@dataclass
class Held:
    """The register as the agent holds it."""

    entry: RegisteredSite | None = None
    changed: Any = None


@dataclass
class Box:
    """A site's keys, ledger, checkpoints, and the change of keys."""

    state: Path
    clock: SimClock = field(default_factory=SimClock)
    register: Held = field(default_factory=Held)
    shown: list[Any] = field(default_factory=list)

    async def open(self) -> Box:
        make_keys(self.state)
        keys = load_keys(self.state)
        self.ledger = Ledger.open(
            self.state / "ledger.db", site=SITE, key=keys.rec, clock=self.clock, fw="t", successor=keys.next_rec
        )
        try:
            keys = settle(self.state, keys, self.ledger)
        except LedgerError:
            await self.ledger.close()
            raise
        self.first = keys
        self.checkpointer = Checkpointer(
            SITE, self.ledger, keys.log, self.clock, 900, lambda: None, self._show,
            first=int(self.ledger.meta("log_from") or 0),
        )  # fmt: skip
        self.rotation = Rotation(SITE, self.state, keys, self.ledger, self.register, self.checkpointer, self.clock)  # type: ignore[arg-type]  # a stand-in with what is asked of it
        self.rotation.listen()
        await self.rotation.arm()
        self.ledger.start()
        return self

    async def _show(self, message: Any) -> None:
        self.shown.append(message)

    async def close(self) -> None:
        await self.ledger.close()

    async def ask(self, role: str = "k_rec", records: int | None = 20) -> KeyChange:
        return read_change((await self.rotation.take({"role": role, "who": "D. Kim", "records": records})).encode())

    async def enter(self, *entries: Epoch) -> None:
        """The registrar signs these, and the agent hears of it."""
        self.register.entry = RegisteredSite(
            id=SITE, zone="z", contracted_w=1, emergency_w=0, slot_s=900, epochs=entries
        )
        await self.rotation.arm()

    def entries(self, change: KeyChange, **changes: Any) -> tuple[Epoch, ...]:
        keys = {"k_rec": self.ledger.key.public.text, "k_log": self.rotation.keys.log.public.text}
        old = Epoch(epoch=self.ledger.epoch, **keys)
        fields = keys | {change.role: change.new.text, "from_index": change.from_index} | changes
        return old, Epoch(epoch=self.ledger.epoch, **fields)

    async def write(self, count: int, each: int = 1) -> None:
        for _ in range(count):
            txn = Txn()
            for _ in range(each):
                txn.record("mp:M0", "event", {"ev": "x", "obj": "x"})
            done = await self.ledger.commit(txn, urgent=True)
            assert [a.ty for a in done] == ["event"] * each, "who commits gets his own records back, and no others"

    async def lines(self) -> list[tuple[str, RecordLine]]:
        rows = await self.ledger.read("SELECT ty, payload, kid, sig FROM record ORDER BY idx")
        return [(str(ty), RecordLine(bytes(payload), kid, bytes(sig))) for ty, payload, kid, sig in rows]


@pytest.fixture
async def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Box]:
    monkeypatch.setattr(store_module, "GROUP_S", 0.001)
    found = await Box(tmp_path / "state").open()
    yield found
    await found.close()


async def signed_by(box: Box, old: VerifyKey, new: VerifyKey) -> int | None:
    """Every record is signed by exactly the key of its place; returns the place of ``key_rotate``."""
    lines = await box.lines()
    turns = [index for index, (ty, _) in enumerate(lines) if ty == "key_rotate"]
    assert len(turns) <= 1
    for index, (_, line) in enumerate(lines):
        assert line.verified_by(new if turns and index > turns[0] else old), index
    return turns[0] if turns else None


@pytest.mark.parametrize("each", [1, 7])
async def test_the_key_changes_at_the_place_that_was_named_and_the_register_has(box: Box, each: int) -> None:
    await box.write(3)
    old = box.ledger.key.public
    change = await box.ask()
    assert change.old == old
    assert ((box.state / NEXT["k_rec"]).stat().st_mode & 0o777) == 0o600
    await box.write(2, each)
    await box.enter(*box.entries(change))
    await box.write(5, each)
    assert box.rotation.status() == {
        "role": "k_rec", "new": change.new.text, "from_index": change.from_index, "waits": None,
    } or each == 7  # fmt: skip
    await box.write(20, each)
    assert await signed_by(box, old, change.new) == change.from_index - 1
    assert box.ledger.key.public == change.new
    assert box.rotation.status() is None
    kept = load_keys(box.state)
    assert (kept.rec.public, kept.next_rec) == (change.new, None), "the old private key is gone"
    doc = json.loads(next(line.payload for ty, line in await box.lines() if ty == "key_rotate"))
    told = {name: doc[name] for name in ("role", "old", "new", "from_index", "proof_old", "proof_new")}
    assert read_change(json.dumps({"v": 1, "site": SITE, "epoch": box.ledger.epoch} | told).encode()) == change


async def test_without_the_registrar_nothing_changes_however_long_it_takes(box: Box) -> None:
    old = box.ledger.key.public
    change = await box.ask()
    await box.write(40)
    assert await signed_by(box, old, change.new) is None
    await box.enter(*box.entries(change))
    await box.write(5)
    assert await signed_by(box, old, change.new) is None, "the register came too late: the old key goes on"
    assert box.rotation.alarms() == {"key_change_missed"}
    assert "too late" in str(box.rotation.waits)
    again = await box.ask(records=None)
    assert again.new == change.new
    assert again.from_index > change.from_index
    await box.enter(*box.entries(again))
    assert box.rotation.alarms() == set()
    await box.write(again.from_index)
    assert await signed_by(box, old, change.new) == again.from_index - 1


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"from_index": 7}, "from 7 on"),
        ({"to_index": 900}, "ends the new key"),
        ({"k_log": SigningKey.generate().public.text}, "another key beside it"),
        ({"k_rec": SigningKey.generate().public.text}, "does not have the new key"),
        ({"epoch": "e9-00000000"}, "does not have the new key"),
    ],
)
async def test_a_register_that_says_something_else_changes_nothing(box: Box, wrong: dict[str, Any], why: str) -> None:
    old = box.ledger.key.public
    change = await box.ask()
    entries = box.entries(change)
    await box.enter(entries[0], entries[1].model_copy(update=wrong))
    assert why in str(box.rotation.waits)
    await box.write(40)
    assert await signed_by(box, old, change.new) is None


async def test_a_register_that_ends_the_old_key_too_early_is_not_followed(box: Box) -> None:
    change = await box.ask()
    old, new = box.entries(change)
    site = RegisteredSite(id=SITE, zone="z", contracted_w=1, emergency_w=0, slot_s=900, epochs=(old, new))

    def with_end(end: int) -> RegisteredSite:
        return site.model_copy(update={"epochs": (old.model_copy(update={"to_index": end}), new)})

    assert "before" in str(lacking(with_end(change.from_index - 2), change, new.k_log))
    assert lacking(with_end(change.from_index - 1), change, new.k_log) is None
    assert lacking(None, change, new.k_log) == "the register does not have the new key yet"


async def test_a_transaction_that_fails_where_the_key_would_change_leaves_the_old_key(box: Box) -> None:
    old = box.ledger.key.public
    change = await box.ask()
    await box.enter(*box.entries(change))
    size, _ = await box.ledger.head()
    await box.write(change.from_index - 1 - size)
    bad = Txn().record("mp:M0", "event", {"ev": "x", "obj": "x"}).run("INSERT INTO meta VALUES ('site', 'other')")
    with pytest.raises(LedgerError, match="UNIQUE"):
        await box.ledger.commit(bad, urgent=True)
    assert box.ledger.key.public == old
    await box.write(3)
    assert await signed_by(box, old, change.new) == change.from_index - 1


async def test_checkpoints_are_signed_by_the_log_key_of_their_last_record(box: Box) -> None:
    old = box.checkpointer.key.public
    await box.checkpointer.make()
    change = await box.ask("k_log")
    await box.enter(*box.entries(change))
    for _ in range(30):
        await box.write(1)
        await box.checkpointer.make()
    rec = box.ledger.key.public
    assert await signed_by(box, rec, rec) == change.from_index - 1
    names = [log_key(box.checkpointer.origin, key.raw) for key in (old, change.new)]
    for size, note in await box.ledger.read("SELECT size, note FROM checkpoint"):
        mine = names[size - 1 >= change.from_index]
        open_checkpoint(bytes(note), [mine])
        with pytest.raises(BadNote):
            open_checkpoint(bytes(note), [n for n in names if n is not mine])
    sizes = {size for (size,) in await box.ledger.read("SELECT size FROM checkpoint")}
    assert {change.from_index - 1, change.from_index + 1} <= sizes
    await box.close()
    await box.open()
    assert (box.checkpointer.key.public, box.checkpointer.first) == (change.new, change.from_index)
    await box.write(1)
    await box.checkpointer.make()
    newest = await box.ledger.read("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1")
    open_checkpoint(bytes(newest[0][0]), [names[1]])


async def test_log_keys_change_one_after_the_other(box: Box) -> None:
    keys = [box.checkpointer.key.public]
    places = [0]
    entries: tuple[Epoch, ...] = ()
    for _ in range(3):
        change = await box.ask("k_log")
        entries = (*(entries or box.entries(change)[:1]), box.entries(change)[1])
        await box.enter(*entries)
        for _ in range(24):
            await box.write(1)
            await box.checkpointer.make()
        keys.append(change.new)
        places.append(change.from_index)
    for size, note in await box.ledger.read("SELECT size, note FROM checkpoint"):
        newest = max(i for i, place in enumerate(places) if size - 1 >= place)
        open_checkpoint(bytes(note), [log_key(box.checkpointer.origin, keys[newest].raw)])


async def test_an_older_ledger_with_newer_keys_is_refused(box: Box) -> None:
    change = await box.ask("k_log")
    await box.enter(*box.entries(change))
    await box.close()
    image = (box.state / "ledger.db").read_bytes()
    await box.open()
    await box.write(30)
    await box.close()
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (box.state / name).unlink(missing_ok=True)
    (box.state / "ledger.db").write_bytes(image)
    with pytest.raises(LedgerError, match="log key"):
        await box.open()
    (box.state / "ledger.db").unlink()
    await box.open()
    change = await box.ask("k_rec")
    await box.enter(*box.entries(change))
    await box.close()
    image = (box.state / "ledger.db").read_bytes()
    await box.open()
    await box.write(30)
    await box.close()
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (box.state / name).unlink(missing_ok=True)
    (box.state / "ledger.db").write_bytes(image)
    with pytest.raises(LedgerForeign):
        await box.open()
    (box.state / "ledger.db").unlink()
    await box.open()


async def test_requests_that_are_none_are_refused(box: Box) -> None:
    for doc in (
        {"role": "tls", "who": "D. Kim"},
        {"role": ["k_rec"], "who": "D. Kim"},
        {"role": "k_rec", "who": " "},
        {"role": "k_rec", "who": "D. Kim", "records": 3},
        {"role": "k_rec", "who": "D. Kim", "records": True},
        {"role": "k_rec", "who": "D. Kim", "records": "many"},
    ):
        with pytest.raises(WireError):
            await box.rotation.take(doc)
    first = await box.ask(records=None)
    assert await box.ask(records=None) == first, "asked twice, the same change"
    with pytest.raises(WireError, match="one at a time"):
        await box.ask("k_log")
    assert await box.ask(records=500) != first


async def test_a_next_key_that_is_lost_stops_nothing(box: Box) -> None:
    change = await box.ask()
    await box.enter(*box.entries(change))
    await box.close()
    (box.state / NEXT["k_rec"]).unlink()
    await box.open()
    old = box.ledger.key.public
    await box.write(40)
    assert await signed_by(box, old, change.new) is None
    assert box.rotation.alarms() == {"key_change_missed"}
    assert (await box.ask()).new != change.new


def test_a_document_whose_proofs_do_not_hold_is_refused() -> None:
    old, new, other = (SigningKey.generate() for _ in range(3))
    change = KeyChange(SITE, "e1-0a0b0c0d", "k_rec", old.public, new.public, 40)
    good = {"v": 1, "site": SITE, "epoch": change.epoch, **change.fields(old, new)}
    assert read_change(json.dumps(good).encode()) == change
    low = "AQ" + "A" * 41 + "="
    for bad in (
        {"from_index": 41}, {"from_index": 0}, {"from_index": True}, {"role": "k_log"}, {"role": "tls"},
        {"site": "kz-other-9"}, {"epoch": "e2-0a0b0c0d"}, {"old": other.public.text}, {"new": other.public.text},
        {"proof_new": good["proof_old"]}, {"proof_old": "!"}, {"new": low}, {"v": 2}, {"new": good["old"]},
    ):  # fmt: skip
        with pytest.raises(WireError):
            read_change(json.dumps(good | bad).encode())
    for raw in (b"[]", b"{", b"x" * 100_000, b'{"v":1}'):
        with pytest.raises(WireError):
            read_change(raw)


# a kill --------------------------------------------------------------------------------------------------------------


def killed(step: str, state: str, role: str = "k_rec") -> None:
    """Body of a process that is killed within a change of a key."""

    def die(*_args: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    make, promote, turn = rotation_module.make_next, rotation_module.promote, Ledger._turn

    def made(*args: Any) -> Any:
        make(*args)
        die()

    def promoted(*args: Any) -> Any:
        promote(*args)
        die()

    def turned(ledger: Ledger, *args: Any) -> Any:
        found = turn(ledger, *args)
        if found:
            die()
        return found

    async def run() -> None:
        box = await Box(Path(state)).open()
        change = await box.ask(role)
        if step == "asked":
            die()
        await box.enter(*box.entries(change))
        if step == "armed":
            die()
        await box.write(60)

    if step == "made":
        rotation_module.make_next = made
    elif step == "written":
        Ledger._turn = turned  # type: ignore[method-assign]  # a played part stands in for the real one
    elif step == "committed":
        rotation_module.promote = die  # type: ignore[assignment]  # checked by the test itself
    elif step == "promoted":
        rotation_module.promote = promoted
    asyncio.run(run())


@pytest.mark.parametrize("step", ["made", "asked", "armed", "written", "committed", "promoted"])
def test_kill_9_at_every_step_leaves_one_key_in_force_and_the_change_can_be_finished(tmp_path: Path, step: str) -> None:
    state = tmp_path / "state"
    make_keys(state)
    child = multiprocessing.get_context("fork").Process(target=killed, args=(step, str(state)))
    old = load_keys(state).rec.public
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    asyncio.run(finished(state, step, old))


@pytest.mark.parametrize("step", ["armed", "written", "committed", "promoted"])
def test_kill_9_leaves_one_log_key_in_force(tmp_path: Path, step: str) -> None:
    state = tmp_path / "state"
    make_keys(state)
    child = multiprocessing.get_context("fork").Process(target=killed, args=(step, str(state), "k_log"))
    old = load_keys(state).log.public
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL

    async def again() -> None:
        box = await Box(state).open()
        try:
            turns = [ty for ty, _ in await box.lines() if ty == "key_rotate"]
            happened = step in {"committed", "promoted"}
            assert len(turns) == happened
            assert (box.checkpointer.key.public == old) != happened
            assert (box.checkpointer.first > 0) == happened
            assert (load_keys(state).next_log is None) == happened
            await box.write(1)
            await box.checkpointer.make()
            (note,) = await box.ledger.read("SELECT note FROM checkpoint")
            open_checkpoint(bytes(note[0]), [log_key(box.checkpointer.origin, box.checkpointer.key.public.raw)])
        finally:
            await box.close()

    asyncio.run(again())


async def finished(state: Path, step: str, old: VerifyKey) -> None:
    """The agent starts again, and the change is asked for until it has happened."""
    box = await Box(state).open()
    try:
        happened = step in {"committed", "promoted"}
        new = (box.first.rec if happened else box.first.next_rec or box.first.rec).public
        assert (await signed_by(box, old, new) is not None) == happened
        assert (box.ledger.key.public == old) != happened
        await box.write(2)
        if not happened:
            change = await box.ask(records=None)
            assert change.new == new
            await box.enter(*box.entries(change))
            size, _ = await box.ledger.head()
            await box.write(change.from_index - size + 1)
        await box.write(2)
        assert await signed_by(box, old, new) is not None
        assert box.ledger.key.public == new
        kept = load_keys(state)
        assert (kept.rec.public, kept.next_rec) == (new, None)
    finally:
        await box.close()


# the registrar -------------------------------------------------------------------------------------------------------


def test_the_registrar_is_told_what_to_enter_by_what_is_proven(tmp_path: Path, capsys: Any) -> None:
    make_keys(tmp_path)
    keys = load_keys(tmp_path)
    good = json.loads(enrolment(tmp_path, SITE, "e1-0a0b0c0d"))
    old, new = keys.rec, SigningKey.generate()
    change = KeyChange(SITE, "e1-0a0b0c0d", "k_rec", old.public, new.public, 40)
    turned = {"v": 1, "site": SITE, "epoch": change.epoch, **change.fields(old, new)}
    file = tmp_path / "proof.json"

    def told(doc: dict[str, Any], *more: str) -> tuple[int, str]:
        file.write_text(json.dumps(doc))
        code = run(["registrar", "proofs", str(file), *more])
        said = capsys.readouterr()
        return code, said.out + said.err

    code, text = told(good, "--site", SITE)
    assert code == 0
    assert all(word in text for word in (keys.rec.public.text, keys.log.public.text, keys.rec.kid[:4]))
    code, text = told(turned)
    assert (code, new.public.text in text, "from_index: 40" in text) == (0, True, True)
    low = "AQ" + "A" * 41 + "="
    for doc, more in (
        (good, ("--site", "kz-other-9")),
        (turned, ("--site", "kz-other-9")),
        (good | {"k_rec": low}, ()),
        (good | {"proof_tls": good["proof_rec"]}, ()),
        (turned | {"new": low}, ()),
        (turned | {"proof_new": turned["proof_old"]}, ()),
    ):
        assert told(doc, *more)[0] == 1
