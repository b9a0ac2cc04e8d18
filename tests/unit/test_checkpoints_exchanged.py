"""Orders and answers carry checkpoints: two histories of one log cannot be shown to the two sides for long.

The issuer's order names the newest cosigned checkpoint he knows, the site's signed answer the newest it has signed;
each holds the other's word against its own, keeps it, and the verifier holds both against the log of the bundle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bundle_kit import EPOCH, ORDER_ID, SITE, START, Site, codes, fresh, good_site, judged

from agent.checkpoints import Checkpointer
from grid.errors import CentralRefused, CentralUnreachable, GridError
from grid.heads import MAX_PROOFS, Heads
from grid.ordering import new_order
from grid.sequence import Sequence
from grid.story import SignedHead
from tests.unit.agent_kit import Core, running_core, sealed
from verifier.report import Report
from wire import canonical
from wire.checkpoints import Checkpoint, cosign, parse_checkpoint
from wire.dsse import ORDER_TYPE, seal
from wire.errors import BadOrder
from wire.keys import SigningKey, b64
from wire.merkle import Frontier
from wire.names import origin
from wire.notes import COSIGNATURE, Note, NoteKey, parse_note
from wire.orders import Restore, parse_order
from wire.registry import KeysDocument
from wire.states import OrderState

LOG, WITNESS, STRANGER = (SigningKey.generate() for _ in range(3))
SO = NoteKey("so.example", COSIGNATURE, WITNESS.public.raw)
ORIGIN = origin(SITE, EPOCH)
KIT_SITE = "kz-small-1"


def noted(
    size: int, root: bytes, *, by: SigningKey = LOG, witness: SigningKey | None = WITNESS, of: str = ORIGIN
) -> str:
    note = Checkpoint(of, size, root).sign(by)
    lines = [cosign(note.text, "so.example", witness, START)] if witness else []
    return Note(note.text, (*note.signatures, *lines)).encode().decode()


def books() -> KeysDocument:
    epoch = {"epoch": EPOCH, "k_rec": SigningKey.generate().public.text, "k_log": LOG.public.text}
    entry = {"id": SITE, "zone": "north", "contracted_w": 10**8, "emergency_w": 10**6, "slot_s": 900, "epochs": [epoch]}
    doc = {
        "v": 1,
        "version": 1,
        "issued_at": START * 1000,
        "persons": [],
        "issuers": [],
        "sites": [entry],
        "policy": f"witness so {SO.text}\nquorum so\n",
    }
    return KeysDocument.model_validate_json(json.dumps(doc))


class Shows:
    """A central that shows what it is given."""

    def __init__(self, newest: str | None = None, sizes: dict[int, str] | None = None) -> None:
        self.newest, self.sizes, self.asked = newest, sizes or {}, 0
        self.error: GridError | None = None

    def checkpoint(self, _site: str, _epoch: str, size: int | None = None) -> str | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.newest if size is None else self.sizes.get(size)


def head(size: int, root: bytes) -> SignedHead:
    return SignedHead(size, root.hex(), f"line of {size}")


# whoever signs orders ------------------------------------------------------------------------------------------------


def test_an_order_carries_the_newest_cosigned_checkpoint_that_was_ever_seen(tmp_path: Path) -> None:
    heads, register = Heads(tmp_path / "me.pem"), books()
    five, nine = noted(5, b"5" * 32), noted(9, b"9" * 32)
    assert heads.newest(SITE, EPOCH, register, None) is None
    assert heads.newest(SITE, EPOCH, register, Shows(five)) == five
    assert Heads(tmp_path / "me.pem").newest(SITE, EPOCH, register, Shows(nine)) == nine
    # Central goes back to an older one, or is silent: what was seen stays.
    assert heads.newest(SITE, EPOCH, register, Shows(five)) == nine
    assert heads.newest(SITE, EPOCH, register, None) == nine
    order = new_order(
        {"site": SITE, "epoch": EPOCH, "action": "stop"},
        register=register,
        sequence=Sequence(tmp_path / "me.pem", "0" * 16),
        now_ms=START * 1000,
        heads=heads,
    )
    assert order.seen == nine


@pytest.mark.parametrize(
    "shown",
    [
        noted(9, b"9" * 32, by=STRANGER),
        noted(9, b"9" * 32, witness=None),
        noted(9, b"9" * 32, witness=STRANGER),
        noted(9, b"9" * 32, of=origin(SITE, "e2-0a1b2c3d")),
        noted(9, b"9" * 32) + "x",
        "",
        "x" * 5000,
    ],
    ids=["another's log", "no witness", "another's witness", "another epoch", "a byte more", "nothing", "long"],
)
def test_nothing_else_is_carried(tmp_path: Path, shown: str) -> None:
    heads = Heads(tmp_path / "me.pem")
    assert heads.newest(SITE, EPOCH, books(), Shows(shown)) is None


def test_no_order_waits_for_a_checkpoint(tmp_path: Path) -> None:
    heads, register = Heads(tmp_path / "me.pem"), books()
    silent = Shows()
    silent.error = CentralUnreachable("no answer")
    for epoch in range(1, 60):
        assert heads.newest(SITE, f"e{epoch}-0a1b2c3d", register, silent) is None
    assert silent.asked == 1, "a central that does not answer is left alone for some seconds"
    damaged = Heads(tmp_path / "you.pem")
    damaged.file.write_text("{")
    assert damaged.newest(SITE, EPOCH, register, Shows(noted(5, b"5" * 32))) is None
    with pytest.raises(GridError, match="damaged; keep a copy"):
        damaged.compare(SITE, EPOCH, [head(5, b"5" * 32)], register, None)


def test_a_sites_own_word_is_held_against_what_central_shows(tmp_path: Path) -> None:
    heads, register = Heads(tmp_path / "me.pem"), books()
    central = Shows(sizes={7: noted(7, b"7" * 32, witness=None)})
    assert heads.compare(SITE, EPOCH, [], register, central) is None
    assert heads.compare(SITE, EPOCH, [head(7, b"7" * 32)], register, central) == "agrees"
    asked = central.asked
    assert heads.compare(SITE, EPOCH, [head(7, b"7" * 32)], register, central) == "agrees"
    assert central.asked == asked, "what was compared is not asked for again"
    assert heads.compare(SITE, EPOCH, [head(8, b"8" * 32)], register, central) == "alone"
    central.error = CentralRefused(404, "unknown")
    assert heads.compare(SITE, EPOCH, [head(8, b"8" * 32)], register, central) == "alone"
    # A note that the log's key did not sign proves nothing, either way.
    forged = Shows(sizes={6: noted(6, b"x" * 32, by=STRANGER)})
    assert Heads(tmp_path / "b.pem").compare(SITE, EPOCH, [head(6, b"6" * 32)], register, forged) == "alone"


def test_two_histories_are_found_whichever_side_shows_them_and_kept_for_ever(tmp_path: Path) -> None:
    register = books()
    # Central shows the dispatcher another history than the site has.
    heads = Heads(tmp_path / "a.pem")
    central = Shows(sizes={7: noted(7, b"x" * 32)})
    assert heads.compare(SITE, EPOCH, [head(7, b"7" * 32)], register, central) == "split"
    assert heads.split(SITE, EPOCH)
    proofs = json.loads(heads.file.read_text())["splits"]
    assert proofs == [[ORIGIN, 7, "line of 7", central.sizes[7]]]
    # Whatever agrees later does not take that back.
    assert heads.compare(SITE, EPOCH, [head(9, b"9" * 32)], register, Shows(sizes={9: noted(9, b"9" * 32)})) == "split"
    # The site says one thing in one answer and another in the next.
    heads = Heads(tmp_path / "b.pem")
    assert heads.compare(SITE, EPOCH, [head(7, b"7" * 32)], register, None) == "alone"
    assert heads.compare(SITE, EPOCH, [head(7, b"y" * 32)], register, None) == "split"
    # What an order carried, and the site's answer to it.
    heads = Heads(tmp_path / "c.pem")
    assert heads.newest(SITE, EPOCH, register, Shows(noted(5, b"5" * 32))) is not None
    assert heads.compare(SITE, EPOCH, [head(5, b"z" * 32)], register, None) == "split"
    # The other log of the same site is not touched by it.
    assert not heads.split(SITE, "e2-0a1b2c3d")


def test_the_file_stays_bounded_and_proofs_are_not_pushed_out(tmp_path: Path) -> None:
    heads, register = Heads(tmp_path / "me.pem"), books()
    heads.compare(SITE, EPOCH, [head(1, b"1" * 32)], register, None)
    heads.compare(SITE, EPOCH, [head(1, b"2" * 32)], register, None)
    for number in range(1, 260):
        heads.compare(SITE, EPOCH, [head(number, number.to_bytes(32, "big"))], register, None)
    doc = json.loads(heads.file.read_text())
    assert len(doc["logs"][ORIGIN]["roots"]) == 200
    assert "1" not in doc["logs"][ORIGIN]["roots"]
    assert doc["splits"][0][:3] == [ORIGIN, 1, "line of 1"]
    assert len(doc["splits"]) <= MAX_PROOFS


def test_an_order_names_only_a_checkpoint_of_its_own_log() -> None:
    base = {"v": 1, "id": "01912345-0000-7000-8000-00000000abcd", "site": SITE, "epoch": EPOCH, "seq": 1}
    base |= {
        "action": "emergency_trip",
        "issued_at": START * 1000,
        "execute_by": START * 1000,
        "expires_at": START * 1000,
    }
    base |= {"hold": {"until_released": True}, "basis": {"code": "x"}, "methods": ["switch"]}
    for seen, good in (
        (noted(5, b"5" * 32), True),
        (noted(5, b"5" * 32, of=origin(SITE, "e2-0a1b2c3d")), False),
        (noted(5, b"5" * 32, of=origin("another-site", EPOCH)), False),
        ("no note", False),
        ("x" * 5000, False),
    ):
        raw = seal(ORDER_TYPE, canonical.encode(base | {"seen": seen}), STRANGER).encode()
        if good:
            assert parse_order(raw).order.seen == seen
        else:
            with pytest.raises(BadOrder, match="seen"):
                parse_order(raw)


# the site ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def with_log(folder: Path) -> AsyncIterator[tuple[Core, Checkpointer]]:
    async with running_core(folder) as core:

        async def publish(_message: object) -> None:
            """Nobody hears."""

        pen = Checkpointer(KIT_SITE, core.ledger, LOG, core.clock, 900, lambda: None, publish)
        await pen.load()

        def newest() -> dict[str, object] | None:
            return None if pen.head is None else {"s": pen.head.size, "r": pen.head.root.hex()}

        core.reception.head, core.reception.shown = newest, pen.shown  # type: ignore[assignment]
        yield core, pen


async def test_answers_name_the_newest_signed_checkpoint(tmp_path: Path) -> None:
    async with with_log(tmp_path) as (core, pen):
        first = core.order("limit", limit_w=50_000)
        await core.reception.take(sealed(first, core.people.dispatcher), False)
        await pen.make()
        size, root = await core.ledger.head()
        await core.until_state(core.journal.live[first.id], OrderState.HOLDING)
        release = core.order("release", target=first.id)
        await core.reception.take(sealed(release, core.people.dispatcher), False)
        told = [doc for doc in await core.answers() if doc["ty"] == "cmd_ack"]
        assert "cp" not in told[0]
        assert told[-1]["cp"] == {"s": size, "r": root.hex()}
        # After a restart it is taken up from disk.
        again = Checkpointer(KIT_SITE, core.ledger, LOG, core.clock, 900, lambda: None, pen.publish)
        await again.load()
        assert again.head == pen.head


async def test_another_history_stops_the_signing_and_never_the_shedding(tmp_path: Path) -> None:
    async with with_log(tmp_path) as (core, pen):
        await pen.make()
        name = origin(KIT_SITE, core.ledger.epoch)
        size, root = await core.ledger.head()
        # The same history, a stranger's note, one that is no longer than the log: all is well.
        for note in (
            Checkpoint(name, size, root).sign(LOG),
            Checkpoint(name, size, b"x" * 32).sign(STRANGER),
        ):
            order = core.order("limit", limit_w=60_000, seen=note.encode().decode())
            await core.reception.take(sealed(order, core.people.dispatcher), False)
            assert order.id in core.journal.live
            assert not pen.counters.split
        other = Checkpoint(name, size, b"x" * 32).sign(LOG).encode().decode()
        order = core.order("limit", limit_w=40_000, seen=other, restore=Restore())
        await core.reception.take(sealed(order, core.people.dispatcher), False)
        assert pen.counters.split, "the log's own key signed another root"
        await core.until_state(core.journal.live[order.id], OrderState.HOLDING)
        signed = pen.counters.signed
        await pen.make()
        assert pen.counters.signed == signed


async def test_a_checkpoint_beyond_the_own_log_is_another_history_too(tmp_path: Path) -> None:
    async with with_log(tmp_path) as (core, pen):
        await pen.make()
        name = origin(KIT_SITE, core.ledger.epoch)
        ahead = Checkpoint(name, 10_000, b"x" * 32).sign(LOG).encode().decode()
        order = core.order("limit", limit_w=40_000, seen=ahead)
        await core.reception.take(sealed(order, core.people.dispatcher), False)
        assert pen.counters.split
        assert order.id in core.journal.live


# whoever verifies ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


def verified(site: Site, tmp_path: Path, *, cp: object = None, seen: str | None = None) -> Report:
    """The site's bundle, its one order carrying ``seen`` and the answer ``cp``."""
    rx, ack = site.streams["cmd"][:2]
    if seen is not None:
        body = {"v": 1, "id": ORDER_ID, "site": SITE, "epoch": EPOCH, "action": "stop", "seen": seen}
        payload = canonical.encode(body)
        rx["raw"] = b64(seal(ORDER_TYPE, payload, site.dispatcher).encode())
        rx["digest"] = hashlib.sha256(payload).hexdigest()
    if cp is not None:
        ack["cp"] = cp
    return judged(tmp_path, site)


def test_what_both_sides_named_is_held_against_the_log(template: Site, tmp_path: Path) -> None:
    first = template.signed()
    size, note = first.sizes[0], first.notes[0].decode()
    root = parse_checkpoint(parse_note(note.encode()).text).root
    good = verified(fresh(template), tmp_path, cp={"s": size, "r": root.hex()}, seen=note)
    assert codes(good) == set()
    between = verified(fresh(template), tmp_path, cp={"s": 1, "r": first_root(first.leaves, 1)})
    assert codes(between) == set(), "sizes that no checkpoint of the bundle has are computed"
    later = verified(fresh(template), tmp_path, cp={"s": 10_000, "r": "ab" * 32})
    assert codes(later) == set(), "the site's own word beyond the last cosigned checkpoint cannot be looked at"


def first_root(leaves: list[bytes], size: int) -> str:
    tree = Frontier()
    tree.extend(leaves[:size])
    return tree.root().hex()


def test_attack_42_the_two_sides_were_shown_two_histories(template: Site, tmp_path: Path) -> None:
    size = template.signed().sizes[0]
    assert codes(verified(fresh(template), tmp_path, cp={"s": size, "r": "ab" * 32})) == {"EQUIVOCATION"}
    assert codes(verified(fresh(template), tmp_path, cp={"s": 1, "r": "ab" * 32})) == {"EQUIVOCATION"}
    other = Checkpoint(ORIGIN, size, b"x" * 32)
    assert codes(verified(fresh(template), tmp_path, seen=other.sign(template.log).encode().decode())) == {
        "EQUIVOCATION"
    }
    ahead = Checkpoint(ORIGIN, 10_000, b"x" * 32).sign(template.log).encode().decode()
    assert codes(verified(fresh(template), tmp_path, seen=ahead)) == {"TRUNCATED"}
    # What the log's key did not sign proves nothing.
    assert codes(verified(fresh(template), tmp_path, seen=other.sign(STRANGER).encode().decode())) == set()
    assert codes(verified(fresh(template), tmp_path, seen="junk")) == set()
    many = Note(other.text, other.sign(STRANGER).signatures * 64).encode().decode()
    assert codes(verified(fresh(template), tmp_path, seen=many + many)) == set()


@pytest.mark.parametrize(
    "cp", [{}, [], 1, {"s": True, "r": "ab" * 32}, {"s": 0, "r": "ab" * 32}, {"s": 5, "r": "AB" * 32}]
)
def test_a_malformed_word_is_an_error(template: Site, tmp_path: Path, cp: object) -> None:
    assert codes(verified(fresh(template), tmp_path, cp=cp)) == {"COMMAND"}
