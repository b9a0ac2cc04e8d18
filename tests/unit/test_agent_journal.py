"""The journal and the clock: the table of transitions is enforced, and nothing that was true is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import TrustedTime, clock_state
from agent.curtailment.journal import Journal
from agent.errors import LedgerError
from agent.ledger import Txn
from tests.unit.agent_kit import START_MS, Core, SimClock, running_core
from wire.states import TRANSITIONS, Flag, OrderState, ended

S = OrderState


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        await found.shut()
        await found.boot(run=False)  # the journal alone: no engine moves anything
        yield found


@pytest.mark.parametrize("was", list(S))
async def test_only_transitions_of_the_table_exist(core: Core, was: OrderState) -> None:
    for now in S:
        order = await core.give("limit", limit_w=50_000)
        order.state = was
        core.journal.live[order.id] = order
        if now in TRANSITIONS[was]:
            await core.journal.move(order, now, "test")
            assert order.state is await core.state(order.id) is now
            assert (order.id in core.journal.live) is not ended(now)
        else:
            with pytest.raises(ValueError, match="no transition"):
                await core.journal.move(order, now, "test")
            assert order.state is was
            assert await core.state(order.id) is S.VALIDATED, "nothing became durable"


async def test_every_change_leaves_a_row_with_its_cause(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.journal.move(order, S.ARMED, "plan made")
    await core.journal.move(order, S.EXECUTING, "acting")
    rows = await core.ledger.read("SELECT was, now, cause, boot FROM transition WHERE order_id=?", order.id)
    assert [r[:3] for r in rows] == [
        (None, "validated", "received"),
        ("validated", "armed", "plan made"),
        ("armed", "executing", "acting"),
    ]
    assert {r[3] for r in rows} == {core.ledger.boot}


async def test_a_move_that_is_not_durable_did_not_happen(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.ledger.commit(Txn().run("CREATE TRIGGER no BEFORE UPDATE ON orders BEGIN SELECT RAISE(ABORT,'x'); END"))
    with pytest.raises(LedgerError):
        await core.journal.move(order, S.ARMED, "plan made")
    assert order.state is S.VALIDATED
    assert core.journal.states[order.id][1] is S.VALIDATED


async def test_everything_about_an_order_survives(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000, tolerance_w=500)
    order.flags |= {Flag.DEGRADED, Flag.BLIND}
    order.doc.released_by, order.doc.abandoned, order.doc.hold_until = "x", ["KM1"], START_MS
    n = await core.journal.intend(order, "sleep", "rack1/1", 3470, "prior", urgent=True)
    await core.journal.outcome(order.id, n, "acknowledged", "")
    n = await core.journal.intend(order, "open", "KM1", 14_000, None, urgent=True)
    await core.journal.save(order)
    again = Journal(core.ledger, core.clock)
    again.load()
    found = again.live[order.id]
    assert (found.order, found.digest, found.kid, found.state) == (order.order, order.digest, order.kid, order.state)
    assert found.flags == order.flags
    assert (found.doc.released_by, found.doc.abandoned, found.doc.hold_until) == ("x", ["KM1"], START_MS)
    assert found.doc.attempts == {"rack1/1": 1, "KM1": 1}
    assert again.held == core.journal.held
    assert again.held["rack1/1"].prior == "prior"
    assert again.last_seq == core.journal.last_seq
    assert [s[:4] for s in again.open_steps()] == [(order.id, n, "open", "KM1")]
    assert await again.intend(found, "sleep", "rack1/2", 1, "p", urgent=True) == n + 1, "numbers go on"


async def test_an_intent_that_is_not_durable_holds_nothing(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.ledger.commit(Txn().run("CREATE TRIGGER no BEFORE INSERT ON step BEGIN SELECT RAISE(ABORT,'x'); END"))
    with pytest.raises(LedgerError):
        await core.journal.intend(order, "open", "KM1", 1, None, urgent=True)
    assert core.journal.held == {}
    assert await core.ledger.read("SELECT * FROM held") == []


async def test_what_is_held_keeps_its_first_prior_state(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.journal.intend(order, "sleep", "rack1/1", 3470, "first", urgent=True)
    await core.journal.intend(order, "sleep", "rack1/1", 10, "second", urgent=True)
    assert core.journal.held["rack1/1"].prior == "first"
    assert await core.ledger.read("SELECT prior FROM held") == [("first",)]


async def test_handing_over_changes_the_owner_and_nothing_else(core: Core) -> None:
    one, two = await core.give("limit", limit_w=50_000), await core.give("limit", limit_w=45_000)
    await core.journal.intend(one, "sleep", "rack1/1", 3470, "prior", urgent=True)
    before = core.journal.held["rack1/1"]
    await core.journal.hand_over(one.id, two.id)
    after = core.journal.held["rack1/1"]
    assert (after.order_id, after.prior, after.expected_w) == (two.id, before.prior, before.expected_w)
    assert core.journal.held_by(one.id) == []
    again = Journal(core.ledger, core.clock)
    again.load()
    assert again.held == core.journal.held


# the clock -----------------------------------------------------------------------------------------------------------

moves = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 10**6)),
        st.tuples(st.just("jump"), st.integers(-(10**9), 10**9)),
        st.tuples(st.just("sync"), st.booleans()),
        st.tuples(st.just("word"), st.integers(START_MS - 10**9, START_MS + 10**9)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=30,
)


@given(moves)
def test_the_trusted_bound_never_runs_backwards_not_even_over_restarts(plan: list[tuple[str, int]]) -> None:
    clock = SimClock()
    trusted = TrustedTime(clock, 0)
    last = trusted.low_ms()
    for what, value in plan:
        if what == "wait":
            clock.advance(value / 1000)
        elif what == "jump":
            clock.wall_ms += value
        elif what == "sync":
            clock.sync = bool(value)
        elif what == "word":
            trusted.raise_to(value)
        else:
            trusted = TrustedTime(clock, last)  # the bound as it was persisted
        now = trusted.low_ms()
        assert now >= last
        last = now


def test_a_clock_that_is_not_synchronised_lifts_the_bound_by_monotonic_time_alone() -> None:
    clock = SimClock()
    trusted = TrustedTime(clock, 0)
    assert trusted.low_ms() == START_MS
    clock.sync = False
    clock.wall_ms += 10**9
    assert trusted.low_ms() == START_MS
    clock.advance(5)
    assert trusted.low_ms() == START_MS + 5000


def test_without_any_word_about_time_nothing_is_trusted() -> None:
    assert TrustedTime(SimClock(synchronised=False), 0).low_ms() == 0


@pytest.mark.parametrize("sync", [True, False])
def test_records_say_whether_the_clock_is_synchronised_and_claim_no_offset(sync: bool) -> None:
    assert clock_state(SimClock(synchronised=sync)) == {"s": "S" if sync else "U", "src": "host", "off_us": None}
