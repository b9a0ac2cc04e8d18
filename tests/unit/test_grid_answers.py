"""What comes back of an order: the site's signed answers, central's, and what the desk makes of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from grid.client import MAX_ANSWER_BYTES, check_url
from grid.desk.desk import Desk
from grid.errors import CentralRefused, CentralUnreachable, ComposeError, GridError
from grid.ordering import story_json
from grid.progress import (
    completion_text,
    report_text,
    returned_text,
    state_text,
    steps,
    story_state_text,
    trial_text,
)
from grid.story import tell
from grid.texts import load_texts
from grid.words import completion
from tests.unit.grid_kit import EPOCH, NOW, SITE, Story, client, order, signed
from wire.keys import SigningKey
from wire.names import origin
from wire.orders import parse_order


@pytest.fixture
def case(tmp_path: Path) -> Story:
    return Story(tmp_path)


def test_signed_answers_tell_the_story_in_any_order(case: Story) -> None:
    told = tell(case.order, [*reversed(case.good()), case.good()[1]], case.register)
    assert [a.state for a in told.answers] == ["received", "validated", "holding"]
    assert told.refused == []
    assert told.kids == (case.rec.kid,)
    assert told.completed is not None
    assert told.completed.power_w == 37_000_000
    assert not told.not_delivered(signed_ms=NOW, now_ms=NOW + 60_000)


REPORT = {
    "verdict": "short",
    "hold_permille": 875,
    "missing_permille": 31,
    "delivered_permille": 990,
    "shortfall_wh": 1_250,
    "excuses": ["tag"],
}


def test_the_sites_report_is_told_and_is_no_state(case: Story) -> None:
    told = tell(case.order, [*case.good(), case.line(3, "cmd_report", REPORT)], case.register)
    assert (told.state, told.refused) == ("holding", [])
    assert told.report is not None
    assert (told.report.verdict, told.report.n, told.report.kid) == ("short", 3, case.rec.kid)
    assert report_text(told, load_texts("en")) == (
        "Report of the site: NOT OBEYED IN FULL; target met in 87.5\u00a0% of what was measured; "
        "above the target: 1.25 kWh; not measured: 3.1\u00a0%; the site names: output tagged"
    )
    assert story_json(case.order, {"kids": [], "verified": [], "bad": None}, told, not_delivered=False)["report"][
        "excuses"
    ] == ("tag",)
    assert report_text(tell(case.order, case.good(), case.register), load_texts("en")) is None


def test_a_report_that_is_not_the_sites_is_refused(case: Story) -> None:
    for line in (
        case.line(3, "cmd_report", REPORT, SigningKey.generate()),
        case.line(3, "cmd_report", REPORT).replace("short", "obeyed"),
        case.line(3, "cmd_report", REPORT | {"id": "x"}),
    ):
        told = tell(case.order, [*case.good(), line], case.register)
        assert told.report is None
        assert len(told.refused) == 1
    forked = [case.line(3, "cmd_report", REPORT | {"verdict": v}) for v in ("short", "obeyed")]
    assert "a fork" in tell(case.order, [*case.good(), *forked], case.register).refused[0].why


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda c: c.line(1, "cmd_eff", {"state": "done"}, SigningKey.generate()), "register does not name"),
        (lambda c: c.good()[2].replace("37000000", "36000000"), "does not verify"),
        (lambda c: c.line(1, "cmd_eff", {"state": "done"}, log=origin("other", EPOCH)), "expected the site's answer"),
        (lambda c: c.line(1, "cmd_eff", {"state": "done"}, log=origin(SITE, "e2-0a1b2c3d")), "expected the site's"),
        (lambda c: c.line(1, "event", {"ev": "x", "obj": "y"}), "expected the site's answer"),
        (lambda c: c.line(1, "cmd_eff", {"state": "done", "id": "x"}), "not of this one"),
        (lambda c: c.line(0, "cmd_rx", {"digest": "00" * 32}), "other bytes"),
        (lambda c: "TZR1|{}|x|y", "expected TZR1"),
        (lambda c: "\ud800", "expected TZR1"),
        (lambda c: {"not": "text"}, "expected a record line"),
    ],
)
def test_anything_else_is_refused_and_does_not_count(case: Story, make: Any, why: str) -> None:
    told = tell(case.order, [make(case)], case.register)
    assert told.answers == []
    assert why in told.refused[0].why
    assert told.state is None
    assert told.not_delivered(signed_ms=NOW, now_ms=NOW + 10_000)
    assert not told.not_delivered(signed_ms=NOW, now_ms=NOW + 9_999)


def test_two_signed_records_of_one_number_are_a_fork(case: Story) -> None:
    other = case.line(2, "cmd_eff", {"state": "done", "power_w": 1})
    assert "a fork" in tell(case.order, [*case.good(), other], case.register).refused[0].why


@pytest.mark.parametrize("state", ["done", "holding"])
@pytest.mark.parametrize(
    ("acceptance", "flags", "trial"),
    [
        ({"agent_mode": "shadow"}, [], "shadow"),
        ({"agent_mode": "monitor"}, [], "monitor"),
        ({"order_mode": "drill"}, [], "drill"),
        ({"agent_mode": "shadow"}, ["drill"], "drill"),
        ({}, ["drill"], "drill"),
    ],
)
def test_what_was_only_tried_out_is_never_to_be_read_aloud(
    case: Story, acceptance: dict[str, Any], flags: list[str], trial: str, state: str
) -> None:
    rx = case.good()[0]
    told = tell(case.order, [rx, case.ack(1, **acceptance), case.eff(2, state, flags=flags)], case.register)
    assert told.refused == []
    assert (told.trial, told.completed, told.returned) == (trial, None, None)
    named = {"shadow": ["shadow"] * 3, "monitor": ["бақылау", "наблюдения", "observes"], "drill": [""] * 3}[trial]
    for language, word in zip(("kk", "ru", "en"), named, strict=True):
        t = load_texts(language)
        assert completion_text(told, t) is None
        assert returned_text(told, t) is None
        said = story_state_text(told, t)
        assert said == trial_text(trial, t)
        assert word in str(said)
        assert state_text(state, t) not in steps(told, t)[-1][1], "the steps do not call it done either"
        assert trial_text(trial, t) in steps(told, t)[-1][1]


def test_a_signed_drill_is_a_drill_whatever_the_site_answers(tmp_path: Path) -> None:
    case = Story(tmp_path)
    case.order = signed(order(mode="drill"), case.key)
    told = tell(case.order, case.good(), case.register)
    assert (told.trial, told.completed) == ("drill", None)


def test_without_the_signed_acceptance_nothing_is_complete(case: Story) -> None:
    rx, ack, eff = case.good()
    told = tell(case.order, [rx, eff], case.register)
    assert told.completed is None
    assert "acceptance is missing" in told.refused[0].why
    unnamed = tell(case.order, [rx, case.ack(1, agent_mode=None), eff], case.register)
    assert unnamed.completed is None, "an acceptance that does not say 'armed' proves nothing"
    repeated = tell(case.order, [rx, ack, eff, case.ack(3, agent_mode="shadow", dup=True)], case.register)
    assert repeated.completed is not None, "the mode of a later copy does not undo what was done"


def test_completion_is_the_meters_word_and_not_the_end_of_a_failure(case: Story) -> None:
    rx, ack, _ = case.good()

    def told(*rest: str) -> Any:
        return tell(case.order, [rx, ack, *rest], case.register)

    en = load_texts("en")
    held = case.eff(2, "holding", target_w=38_000_000)
    after = told(held, case.eff(3, "done", 81_000_000))
    assert completion_text(after, en) == completion(NOW + 2, 37_000_000, en)
    assert str(returned_text(after, en)).endswith("load 81 MW")
    failed = told(case.eff(2, "failed", 60_000_000), case.eff(3, "done", 81_000_000))
    assert completion_text(failed, en) is None
    assert failed.returned is not None
    assert told(held, case.eff(3, "failed", 60_000_000)).completed is None
    assert told(held, case.eff(3, "failed", 60_000_000), case.eff(4, "done", 81_000_000)).completed is None
    crept = case.eff(3, "holding", 39_000_000, target_w=38_000_000, flags=["degraded"])
    assert told(held, crept).completed is None, "a later signed word that the load is above the limit again"
    assert told(held, crept, case.eff(4, "holding", target_w=38_000_000)).completed is not None


# Central's client and the desk


def test_the_clients_answers_are_bounded_and_named() -> None:
    huge = client(lambda _: httpx.Response(200, content=b" " * (MAX_ANSWER_BYTES + 1)))
    with pytest.raises(GridError, match="more than"):
        huge.sites()
    with pytest.raises(CentralRefused, match=r"409 id_reuse: The id is taken") as refused:
        client(lambda _: httpx.Response(409, json={"code": "id_reuse", "title": "The id is taken"})).post_order(b"{}")
    assert refused.value.status == 409
    with pytest.raises(GridError, match="not JSON"):
        client(lambda _: httpx.Response(200, text="<html>")).sites()
    with pytest.raises(GridError, match="not a list of objects"):
        client(lambda _: httpx.Response(200, json=[1])).sites()

    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no", request=request)

    with pytest.raises(CentralUnreachable, match="call the site"):
        client(lost).sites()


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://u:p@h", "x", "http://h:port", "http://h/?a=1"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(GridError, match="central"):
        check_url(url)


def test_the_desk_calls_when_nothing_comes_back_and_keeps_what_was_signed(case: Story, tmp_path: Path) -> None:
    clock = [NOW]
    posted: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            posted.append(request.read())
        raise httpx.ConnectError("no", request=request)

    desk = Desk(
        client=client(handler),
        signer=case.key,
        key_file=tmp_path / "k.pem",
        register=case.register,
        now_ms=lambda: clock[0],
    )
    draft = desk.compose({"site": SITE, "action": "limit", "limit_kw": "38000"})
    shown = desk.draft(draft)
    order_id = desk.sign(draft)
    assert shown is not None
    assert parse_order(posted[0]).order == shown, "signed is exactly what was shown"
    assert not desk.order(order_id).not_delivered
    clock[0] += 10_000
    page = desk.order(order_id)
    assert page.not_delivered
    assert page.error is not None
    desk.post(order_id)
    assert posted[1] == posted[0]
    with pytest.raises(ComposeError, match="gone"):
        desk.sign(draft)
    late = desk.compose({"site": SITE, "action": "limit", "limit_kw": "1"})
    clock[0] += 120_001
    with pytest.raises(ComposeError, match="two minutes"):
        desk.sign(late)
