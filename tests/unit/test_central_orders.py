"""What central tells of an order: signed before unsigned, and a copy's refusal never undoes the first."""

from __future__ import annotations

import dataclasses

import pytest

from central.dispatch import view
from central.live import Freshness, LiveSite, Presence
from central.pages import chart
from central.pages.parts import alarm_text, flag_text, trial_text
from central.pages.site import site_words
from central.pages.story import Notices, notices, steps
from central.pages.texts import LANGUAGES, load_all
from central.store.orders import Answer, StoredOrder
from wire.keys import SigningKey
from wire.messages import Live, Progress, State
from wire.names import origin
from wire.records import RecordLine
from wire.states import Flag, OrderState, Phase

KEY = SigningKey.generate()
NOW = 1_795_000_000_000
ORDER = StoredOrder("o1", "ekb-1", "e1-00000000", "limit", "d", b"{}", NOW, NOW + 60_000)


def answer(
    ty: str, at: int, state: str | None = None, *, verified: bool | None = True, code: str | None = None
) -> Answer:
    return Answer(ty, NOW + at, NOW + at + 50, state, code, None, None, None, verified, b"")


def said(state: str, at: int) -> Progress:
    return Progress(site="ekb-1", epoch="e1-00000000", order="o1", state=OrderState(state), at=NOW + at)


RX, ACK, HOLD = answer("cmd_rx", 100), answer("cmd_ack", 110, "armed"), answer("cmd_eff", 3000, "holding")


@pytest.mark.parametrize(
    ("answers", "progress", "after_ms", "state", "signed", "phase", "late"),
    [
        ([], [], 9_999, None, None, Phase.SENT, False),
        ([], [], 10_000, None, None, Phase.SENT, True),
        ([RX], [], 20_000, "received", "received", Phase.SENT, False),
        ([RX, ACK], [], 20_000, "armed", "armed", Phase.ACCEPTED, False),
        ([RX, ACK], [said("executing", 500)], 20_000, "executing", "armed", Phase.ACTING, False),
        ([RX, ACK, HOLD], [said("executing", 500)], 20_000, "holding", "holding", Phase.HELD, False),
        ([], [said("done", 500)], 20_000, "done", None, Phase.DONE, True),
        (
            [RX, ACK, HOLD, answer("cmd_ack", 9000, "rejected", code="replay")],
            [],
            0,
            "holding",
            "holding",
            Phase.HELD,
            False,
        ),
        ([RX, answer("cmd_ack", 110, "rejected", code="mode")], [], 0, "rejected", "rejected", Phase.REFUSED, False),
        ([answer("cmd_eff", 110, "done", verified=False)], [], 20_000, None, None, Phase.SENT, True),
        ([RX, ACK, answer("cmd_eff", 500, "no_such_state")], [], 0, "armed", "armed", Phase.ACCEPTED, False),
        ([RX, ACK, answer("cmd_eff", 9000, "done")], [said("executing", 99_000)], 0, "done", "done", Phase.DONE, False),
    ],
)
def test_states(answers, progress, after_ms, state, signed, phase, late) -> None:
    found = view(ORDER, answers, progress, NOW + after_ms)
    assert (found.state, found.signed_state, found.phase, found.not_delivered) == (state, signed, phase, late)


def test_signed_steps_replace_what_was_only_said_and_the_rest_waits() -> None:
    told = steps(view(ORDER, [RX, ACK], [said("armed", 50), said("executing", 500)], NOW))
    assert [(s.name, s.reached, s.signed) for s in told][:5] == [
        ("sent", True, False),
        ("received", True, True),
        ("accepted", True, True),
        ("outputs", True, False),
        ("readback", False, False),
    ]
    assert told[2].at == NOW + 110


def test_a_refusal_ends_the_list() -> None:
    told = steps(view(ORDER, [RX, answer("cmd_ack", 110, "rejected", code="mode")], [], NOW))
    assert [s.name for s in told] == ["sent", "received", "rejected"]
    assert told[-1].bad
    assert told[-1].text == "mode"


def test_a_refused_copy_leaves_the_steps_of_the_first() -> None:
    told = steps(view(ORDER, [RX, ACK, HOLD, answer("cmd_ack", 9000, "rejected", code="replay")], [], NOW))
    assert [s.name for s in told if s.reached] == ["sent", "received", "accepted", "confirmed", "held"]


def test_a_release_has_no_steps_that_can_never_come() -> None:
    release = dataclasses.replace(ORDER, action="release")
    told = steps(view(release, [RX, answer("cmd_ack", 110, "validated")], [], NOW))
    assert [(s.name, s.reached) for s in told] == [("sent", True), ("received", True), ("accepted", True)]


@pytest.mark.parametrize(
    ("language", "plan"),
    [
        ("kk", "мақсат 710,0 кВт; ұйқыға жіберілетін машиналар: 150, барлығы 483,1 кВт"),
        ("ru", "цель 710,0 кВт; усыпляются машины: 150, на 483,1 кВт"),
        ("en", "target 710.0 kW; machines to sleep: 150, for 483.1 kW"),
    ],
)
def test_the_sites_usual_remarks_are_translated_and_others_stay_as_signed(language: str, plan: str) -> None:
    texts = load_all()[language]
    said = "accepted; 1183.0 kW now, target 710.0 kW; will put 150 machines to sleep for 483.1 kW"
    assert site_words(said, texts) == plan
    assert site_words("confirmed by the meter", texts) == ""
    assert site_words("KM1 was closed by others", texts) == "KM1 was closed by others"


@pytest.mark.parametrize(("age_min", "window_min"), [(0, 10), (3, 10), (30, 30), (90, 60)])
def test_the_chart_shows_what_there_is_and_at_most_an_hour(age_min: int, window_min: int) -> None:
    drawn = chart.options(load_all()["ru"])
    chart.fill(drawn, [[NOW - age_min * 60_000, 5.0], [NOW, 6.0]], [], NOW, 900)
    assert drawn["xAxis"]["max"] - drawn["xAxis"]["min"] == window_min * 60_000
    chart.fill(drawn, [], [], NOW, 900)
    assert drawn["xAxis"]["max"] - drawn["xAxis"]["min"] == 600_000


def signed_answer(ty: str, at: int, state: str | None, **fields: object) -> Answer:
    """An answer with its record line, as the collector stores it."""
    doc = {"v": 1, "log": origin("ekb-1", "e1-00000000"), "st": "cmd", "n": at, "p": "00" * 32, "a": None, "ty": ty}
    doc |= {"at": NOW + at, "mono": 1, "boot": "b", "clk": {"s": "S"}, "fw": "1", "id": "o1", "state": state}
    line = RecordLine.sign(doc | fields, KEY).encode()
    return Answer(ty, NOW + at, NOW + at + 50, state, None, None, None, None, True, line)


def accepted(agent_mode: str, order_mode: str = "live") -> Answer:
    return signed_answer("cmd_ack", 110, "validated", agent_mode=agent_mode, order_mode=order_mode)


@pytest.mark.parametrize(
    ("ack", "flags", "trial"),
    [
        (accepted("armed"), [], None),
        (accepted("armed"), ["degraded"], None),
        (accepted("shadow"), [], "shadow"),
        (accepted("monitor"), [], "monitor"),
        (accepted("shadow", "drill"), ["drill"], "drill"),
        (accepted("armed"), ["drill"], "drill"),
    ],
)
def test_what_was_only_tried_out_is_told_as_such(ack: Answer, flags: list[str], trial: str | None) -> None:
    found = notices(view(ORDER, [RX, ack, signed_answer("cmd_eff", 120, "done", flags=flags)], [], NOW))
    assert found.trial == trial
    assert found.flags == tuple(f for f in flags if f != "drill")


def test_flags_and_persons_waited_for_come_from_the_newest_word() -> None:
    held = signed_answer("cmd_eff", 500, "holding", flags=["degraded"])
    older = said("executing", 400).model_copy(update={"flags": (Flag.BLIND,), "waiting_for": ("KM9",)})
    newer = said("restoring", 900).model_copy(
        update={"flags": (Flag.DEGRADED, Flag.LOCAL_OVERRIDE), "waiting_for": ("KM1",)}
    )
    answers = [RX, accepted("armed"), held]
    assert notices(view(ORDER, answers, [older], NOW)) == Notices(flags=("degraded",))
    now = notices(view(ORDER, answers, [older, newer], NOW))
    assert now == Notices(("degraded",), ("local_override",), ("KM1",), None)
    over = [*answers, signed_answer("cmd_eff", 950, "done", flags=[])]
    assert notices(view(ORDER, over, [older, newer], NOW)) == Notices()


@pytest.mark.parametrize("language", LANGUAGES)
def test_flags_alarms_and_trials_are_words_in_every_language(language: str) -> None:
    texts = load_all()[language]
    for flag in set(Flag) - {Flag.DRILL}:
        assert flag_text(flag, texts) != flag.value
    for alarm in ("clock_unsynchronised", "storage", "orphaned", "saon_lock", "fork", "other_hash", "tail_lost"):
        assert alarm_text(alarm, texts) != alarm
    assert alarm_text("meter_silent:em-0", texts).endswith(": em-0")
    assert not alarm_text("meter_silent:em-0", texts).startswith("meter_silent")
    assert alarm_text("something:new", texts) == "something:new"
    assert len({trial_text(name, texts) for name in ("drill", "shadow", "monitor")}) == 3


def live(net_w: int | None, at: int = NOW, **fields: object) -> Live:
    return Live(site="ekb-1", epoch="e1-00000000", boot="b", at=at, net_w=net_w, **fields)


@pytest.mark.parametrize(
    ("net_w", "own_age", "later", "power", "freshness"),
    [
        (5000, 0, 0, 5000, Freshness.FRESH),
        (5000, 0, 15_000, 5000, Freshness.FRESH),
        (5000, 0, 15_001, 5000, Freshness.STALE),
        (5000, 20_000, 0, 5000, Freshness.STALE),
        (5000, 0, 300_001, None, Freshness.UNKNOWN),
        (None, 0, 0, None, Freshness.UNKNOWN),
        (0, 0, 0, 0, Freshness.FRESH),
    ],
)
def test_age_of_live_power(net_w, own_age, later, power, freshness) -> None:
    site = LiveSite("ekb-1")
    assert site.net(NOW).freshness is Freshness.UNKNOWN
    site.take_live(live(net_w, ages_ms={"net_w": own_age}), NOW)
    found = site.net(NOW + later)
    assert (found.power_w, found.freshness) == (power, freshness)


def test_an_older_live_message_does_not_replace_a_newer_one() -> None:
    site = LiveSite("ekb-1")
    assert site.take_live(live(2), NOW)
    assert not site.take_live(live(1, at=NOW - 1), NOW + 5)
    assert site.net(NOW).power_w == 2


def test_presence_is_unknown_without_a_broker() -> None:
    site = LiveSite("ekb-1")
    assert site.presence(broker_up=True) is Presence.UNKNOWN
    doc = {"site": "ekb-1", "epoch": "e1-00000000", "boot": "b", "agent_version": "1", "mode": "armed", "at": 1}
    site.take_state(State.model_validate(doc | {"online": True}), NOW)
    assert site.presence(broker_up=True) is Presence.ONLINE
    assert site.presence(broker_up=False) is Presence.UNKNOWN


def test_memory_of_progress_is_bounded() -> None:
    site = LiveSite("ekb-1")
    for i in range(500):
        site.take_progress(said("executing", i).model_copy(update={"order": f"o{i}", "steps_done": i}))
        site.take_progress(said("executing", i).model_copy(update={"order": "same", "steps_done": i}))
    assert len(site.progress) <= 50
    assert all(len(steps) <= 300 for steps in site.progress.values())


def test_every_text_of_the_pages_is_in_every_catalogue() -> None:
    import ast
    from pathlib import Path

    import central.pages

    used = set()
    folder = Path(central.pages.__file__).parents[1]
    for path in [*folder.glob("pages/*.py"), *folder.glob("papers/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in {"texts", "_texts"}:
                    used.add(node.args[0].value)
    catalogues = load_all()
    assert len(used) > 80
    for language in LANGUAGES:
        texts = catalogues[language].catalogue
        assert used - set(texts) == set()
        for key in used:
            fields = {part.split("}")[0] for part in key.split("{")[1:]}
            assert fields == {part.split("}")[0] for part in texts[key].split("{")[1:]}, f"{language}: {key}"
    letters = "".join(catalogues["kk"].catalogue.values()).lower()
    assert set("әғқңөұүі") <= set(letters)
