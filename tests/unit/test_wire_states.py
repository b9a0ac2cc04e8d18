"""Names, states, reasons and the point vocabulary: closed tables that hold together."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import WireError
from wire.names import DOWN, RETAINED, UP, check_epoch, check_site, origin, parse_topic, topic
from wire.points import COUNTERS, TARIFFS, UNITS, base_point, is_point, unit_of
from wire.quality import BY_CODE, CODES, Quality
from wire.states import PHASE, TRANSITIONS, Flag, OrderState, Phase, Reason, ended

S = OrderState


def reachable(start: OrderState) -> set[OrderState]:
    seen, todo = {start}, [start]
    while todo:
        for state in TRANSITIONS[todo.pop()] - seen:
            seen.add(state)
            todo.append(state)
    return seen


def test_the_table_of_transitions_is_closed() -> None:
    assert set(TRANSITIONS) == set(S)
    for state, following in TRANSITIONS.items():
        assert following <= set(S)
        assert state not in following


def test_ended_states_and_no_others_have_no_exit() -> None:
    assert {s for s in S if ended(s)} == {s for s in S if not TRANSITIONS[s]}


def test_every_state_is_reached_and_every_state_can_end() -> None:
    assert reachable(S.RECEIVED) == set(S)
    for state in S:
        assert any(ended(s) for s in reachable(state)), state


def test_what_was_shed_never_comes_back_without_restoration() -> None:
    """From an acting state the only way to an end leads through ``restoring``."""
    for state in (S.EXECUTING, S.VERIFYING, S.HOLDING, S.FAILED, S.SUPERSEDED, S.RESTORE_BLOCKED):
        assert not any(ended(s) for s in TRANSITIONS[state]), state
    assert {s for s in S if S.DONE in TRANSITIONS[s]} == {S.RESTORING, S.VALIDATED}


def test_nothing_acts_before_it_is_validated_and_armed() -> None:
    assert TRANSITIONS[S.RECEIVED] == {S.VALIDATED, S.REJECTED}
    assert not any(S.EXECUTING in TRANSITIONS[s] for s in (S.RECEIVED, S.VALIDATED, S.SCHEDULED, S.SUPERSEDED))


def test_every_state_has_a_phase_and_every_phase_is_used() -> None:
    assert set(PHASE) == set(S)
    assert set(PHASE.values()) == set(Phase)


@pytest.mark.parametrize("table", [OrderState, Flag, Phase, Reason, Quality])
def test_values_are_unique_and_named_like_their_names(table: type) -> None:
    assert len({m.value for m in table}) == len(table.__members__)
    for name, member in table.__members__.items():
        assert member.value == name.lower() == str(member)


def test_quality_codes_never_change() -> None:
    """Stored batches hold these numbers: new ones are added at the end."""
    assert {str(q): code for q, code in CODES.items()} == {
        "good": 0,
        "stale": 1,
        "suspect": 2,
        "not_read": 3,
        "timeout": 4,
        "crc": 5,
        "exception": 6,
        "no_connection": 7,
        "no_value": 8,
        "decode": 9,
        "no_power": 10,
    }
    assert {code: q for q, code in CODES.items()} == BY_CODE
    assert [q for q in Quality if q.usable] == [Quality.GOOD]


@pytest.mark.parametrize("name", [*UP, *DOWN])
def test_topics_come_back(name: str) -> None:
    text = topic("kz-01", name)
    assert text == f"tizgin/1/kz-01/{name}"
    parsed = parse_topic(text)
    assert (parsed.site, parsed.name) == ("kz-01", name)


def test_directions_do_not_overlap_and_orders_are_not_retained() -> None:
    assert not set(UP) & set(DOWN)
    assert set(UP) | set(DOWN) >= RETAINED
    assert "order" not in RETAINED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "tizgin/1/kz-01",
        "tizgin/1/kz-01/",
        "tizgin/1/kz-01/order/x",
        "/tizgin/1/kz-01/order",
        "tizgin/2/kz-01/order",
        "Tizgin/1/kz-01/order",
        "tizgin/1/+/order",
        "tizgin/1/#",
        "tizgin/1/kz-01/#",
        "tizgin/1//order",
        "tizgin/1/a/order",
        "tizgin/1/-kz/order",
        "tizgin/1/KZ-01/order",
        "tizgin/1/kz-01\n/order",
        "tizgin/1/kz-01/order\n",
        "tizgin/1/кз-01/order",
        "$share/g/tizgin/1/kz-01/order",
    ],
)
def test_other_topics_are_refused(text: str) -> None:
    with pytest.raises(WireError):
        parse_topic(text)


def test_topics_are_only_made_for_names_of_the_contract() -> None:
    with pytest.raises(WireError, match="not in the contract"):
        topic("kz-01", "+")
    with pytest.raises(WireError, match="site id"):
        topic("kz/01", "order")


@settings(deadline=None)
@given(st.text(max_size=50))
def test_any_text_is_a_topic_or_refused(text: str) -> None:
    for candidate in (text, f"tizgin/1/{text}/order", f"tizgin/1/kz-01/{text}"):
        try:
            parsed = parse_topic(candidate)
        except WireError:
            continue
        assert topic(parsed.site, parsed.name) == candidate


@pytest.mark.parametrize("epoch", ["e1-0a0b0c0d", "e999999-ffffffff"])
def test_epochs(epoch: str) -> None:
    assert check_epoch(epoch) == epoch
    assert origin("kz-01", epoch) == f"tizgin/kz-01/{epoch}"


@pytest.mark.parametrize(
    "epoch", ["", "e-0a0b0c0d", "e1-0A0B0C0D", "e1-0a0b0c0", "e1-0a0b0c0d\n", "e1234567-00000000", "e٣-0a0b0c0d"]
)
def test_other_epochs_are_refused(epoch: str) -> None:
    with pytest.raises(WireError):
        check_epoch(epoch)


@pytest.mark.parametrize("site", ["ab", "0-", "a" * 41])
def test_shortest_and_longest_site_ids(site: str) -> None:
    assert check_site(site) == site
    with pytest.raises(WireError):
        check_site(site + "a" * 40)


def test_only_counters_have_tariffs() -> None:
    assert set(UNITS) >= COUNTERS
    for name in UNITS:
        assert is_point(name)
        for tariff in TARIFFS:
            assert is_point(name + tariff) == (name in COUNTERS)
    assert base_point("energy_import_wh_t2") == "energy_import_wh"
    assert unit_of("energy_import_wh_t2") == "Wh"
    assert not is_point("energy_import_wh_t5")
    assert not is_point("energy_import_wh_t1_t2")
    with pytest.raises(KeyError):
        unit_of("power_kw")
