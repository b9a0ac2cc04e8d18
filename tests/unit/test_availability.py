"""Availability of a month: what signed records show, and no more; unknown is neither available nor not."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from agent.rounds import Rounds, readiness
from central.availability import Report, as_dict, report
from central.store.database import make_engine
from central.store.evidence import Incoming, store
from config.nodes import Input
from drivers.capabilities import Position, SwitchState
from tests.integration.central_site import Ledger
from tests.unit.agent_kit import running_core
from tizgin.commands._central_availability import month_of
from tizgin.errors import UserError
from wire.dsse import ACT_TYPE, seal
from wire.keys import SigningKey
from wire.records import parse_line

SITE = "ekb-1"
SLOT_S = 900
FIRST_S, LAST_S = month_of("2026-10")
T0 = FIRST_S * 1000
HOUR = 3_600_000


class Month:
    """Records of one site, and the report on them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.ledger = Ledger(SITE, SigningKey.generate())

    def put(self, stream: str, ty: str, at: int, *, verified: bool | None = True, **fields: Any) -> None:
        line = self.ledger.add(stream, ty, at=at, **fields)
        record, doc = parse_line(line)
        store(self.connection, [Incoming(SITE, self.ledger.epoch, line, record, doc, verified)], at + 500)

    def event(self, hours: float, ev: str, obj: str, now: str, was: str | None = None, **detail: Any) -> None:
        self.put("site", "event", T0 + round(hours * HOUR), ev=ev, obj=obj, was=was, now=now, detail=detail)

    def start(self, hours: float) -> None:
        self.put("site", "start", T0 + round(hours * HOUR), config_sha256="0", mode="armed", keys_version=1)

    def stop(self, hours: float) -> None:
        self.put("site", "stop", T0 + round(hours * HOUR), reason="asked to stop")

    def round(self, hours: float, *rows: list[Any], **more: Any) -> None:
        self.event(hours, "round", "site", "1/1", switches=list(rows), **more)

    def report(self, hours: float) -> Report:
        return report(self.connection, SITE, SLOT_S, FIRST_S, LAST_S, FIRST_S + round(hours * 3600))


@pytest.fixture
def month(database_url: str) -> Iterator[Month]:
    engine = make_engine(database_url)
    with engine.begin() as connection:
        yield Month(connection)
    engine.dispose()


CLOSED = ["KM1", "closed", "good", False]


def test_a_switch_that_never_moved_is_known_from_the_round_on_while_the_agent_ran(month: Month) -> None:
    month.start(0)
    month.round(1, CLOSED)
    month.stop(10)
    (switch,) = month.report(24).switches
    assert (switch.available_s, switch.unknown_s) == (9 * 3600, 15 * 3600)
    assert switch.permille == 1000
    assert month.report(24).agent_up_s == 10 * 3600


def test_what_was_told_before_a_restart_says_nothing_of_what_is_after(month: Month) -> None:
    month.start(0)
    month.round(0, CLOSED)
    month.start(5)
    month.round(8, CLOSED)
    month.stop(10)
    (switch,) = month.report(10).switches
    assert switch.unknown_s == 3 * 3600 + 5 * 3600, "from the last record to the start, and until the next round"
    assert switch.available_s == 2 * 3600


def test_each_reason_has_its_hours(month: Month) -> None:
    month.start(0)
    month.round(0, CLOSED)
    month.event(1, "readiness", "KM1", "bad: spring not charged", "good")
    month.event(2, "readiness", "KM1", "good", "bad: spring not charged")
    month.event(3, "tag", "KM1", "tagged", who="A")
    month.event(4, "tag", "KM1", "removed", who="A")
    month.event(5, "switch_position", "KM1", "faulty", "closed")
    month.event(6, "switch_position", "KM1", "unknown", "faulty")
    month.event(7, "switch_position", "KM1", "closed", "unknown")
    month.event(8, "switch_position", "KM1", "open", "closed")
    month.event(9, "maintenance", "KM1", "begun", until=T0 + 11 * HOUR)
    month.event(12, "maintenance", "KM1", "begun", until=T0 + 24 * HOUR)
    month.event(13, "maintenance", "KM1", "ended")
    month.stop(14)
    (switch,) = month.report(14).switches
    assert dict(switch.unavailable_s) == {
        "maintenance": 3 * 3600,
        "position faulty": 3600,
        "spring not charged": 3600,
        "tag": 3600,
    }
    assert switch.unknown_s == 3600
    assert switch.available_s == 7 * 3600
    assert switch.operations == 1


def test_a_tag_from_last_month_still_hangs(month: Month) -> None:
    month.start(-60)
    month.event(-59, "tag", "KM1", "tagged", who="A")
    month.round(-1, ["KM1", "closed", "good", True])
    month.round(5, ["KM1", "closed", "good", True])
    month.stop(6)
    (switch,) = month.report(6).switches
    assert dict(switch.unavailable_s) == {"tag": 6 * 3600}


def test_a_meter_s_gaps_have_their_reasons_and_a_proven_outage_is_no_failure(month: Month) -> None:
    for n in range(8):
        t0 = FIRST_S + n * SLOT_S
        at = (t0 + SLOT_S) * 1000
        if n in {2, 3}:
            month.put("mp:M1", "gap", at, t0=t0, t1=t0 + SLOT_S, why="DE_ENERGISED", tries=1)
        elif n == 4:
            month.put("mp:M1", "gap", at, t0=t0, t1=t0 + SLOT_S, why="TIMEOUT", tries=3)
        elif n != 5:
            month.put("mp:M1", "interval", at, t0=t0, t1=t0 + SLOT_S, wh=1, exp_wh=None, q=[], verified=n != 7)
    found = month.report(2)
    (meter,) = found.meters
    assert dict(meter.gaps) == {"DE_ENERGISED": 2, "TIMEOUT": 1}
    assert (meter.intervals, meter.missing) == (3, 2), "what no signature holds is not known"
    assert meter.permille == 750
    assert found.unverified == 1
    assert found.link["delivered"] == 6
    assert found.link["late"] == 0


def test_saon_proof_tests_and_drills(month: Month) -> None:
    month.start(0)
    proof = [["KM1", T0 - 10 * HOUR, T0 + 5 * HOUR], ["KM2", None, None], ["KM3", T0, T0 + 9000 * HOUR]]
    month.round(0, CLOSED, saon=[["F1", 1, False], ["F1", 2, None]], proof=proof)
    month.event(2, "saon", "F1", "operated", stage=1)
    act = b'{"at":%d,"outputs":[{"output":"KM2"}],"ty":"commissioning"}' % (T0 + 3 * HOUR)
    doc = base64.b64encode(seal(ACT_TYPE, act, SigningKey.generate()).encode()).decode()
    month.put("site", "act", T0 + 3 * HOUR, act="commissioning", doc=doc)
    for number, (mode, state) in enumerate((("live", "holding"), ("live", "failed"), ("drill", "holding"))):
        order = {"id": f"o{number}"}
        at = T0 + (4 + number) * HOUR
        month.put("cmd", "cmd_ack", at, **order, state="validated", order_mode=mode, agent_mode="armed")
        month.put("cmd", "cmd_eff", at + 1, **order, state=state)
    found = month.report(10)
    assert [(s.feeder, s.stage, s.operations, s.rounds, s.readable) for s in found.saon] == [
        ("F1", 1, 1, 1, 1),
        ("F1", 2, 0, 1, 0),
    ]
    assert [(p.output, p.overdue) for p in found.proof] == [("KM1", True), ("KM2", False), ("KM3", False)]
    assert next(p.last for p in found.proof if p.output == "KM2") == T0 + 3 * HOUR
    assert found.orders == {
        "accepted": 2, "held": 1, "failed": 1, "other": 0, "not_armed": 0, "rejected": 0, "drills": 1,
    }  # fmt: skip
    assert not found.known
    assert as_dict(found)["saon"][0]["operations"] == 1


def test_nothing_on_record_is_nothing_known(month: Month) -> None:
    found = month.report(24)
    assert (found.meters, found.switches, found.agent_up_s) == ((), (), 0)


def test_a_signature_proves_no_shape(month: Month) -> None:
    month.start(0)
    for rows in (7, [7], [["KM1"]], [{"a": 1}], [["KM1", None, None, None]]):
        month.event(1, "round", "site", "1/1", switches=rows, saon=rows, proof=rows)
    month.event(2, "maintenance", "KM1", "begun", until="soon")
    month.event(2, "saon", "F1", "operated", stage="one")
    month.put("site", "act", T0 + HOUR, act="commissioning", doc="!")
    month.stop(3)
    assert as_dict(month.report(3))["saon"] == []


def test_a_month_is_kazakhstan_s() -> None:
    assert month_of("2026-12") == (1_796_065_200, 1_798_743_600)
    for wrong in ("2026-13", "11-2026", "2026-1"):
        with pytest.raises(UserError):
            month_of(wrong)


# the rounds that the agent writes -------------------------------------------------------------------------------------


async def test_the_round_tells_every_switch_its_tag_and_its_proof(tmp_path: Path) -> None:
    class Bare:
        saon = {("F1", 1): None}  # noqa: RUF012 - stands in for a bench

    async with running_core(tmp_path) as core:
        await core.gates.tag("KM2", "A. Serik", "permit")
        (fields,) = Rounds(core.ledger, core.live, core.gates, Bare()).look()  # type: ignore[arg-type]  # a stand-in with what is asked of it
        assert fields["detail"]["switches"] == [["KM1", "closed", "absent", False], ["KM2", "closed", "absent", True]]
        assert fields["detail"]["saon"] == [["F1", 1, None]]
        output, last, due = fields["detail"]["proof"][0]
        assert output == "KM1"
        assert due - last == core.gates.switches["KM1"].proof_test_months * 30 * 24 * HOUR


async def test_readiness_is_bad_before_it_is_unknown(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        node = core.gates.switches["KM1"]
        wired = node.model_copy(
            update={
                "readiness": node.readiness.model_copy(
                    update={"remote": Input(device="io-1", input="di_1"), "lockout": Input(device="io-1", input="di_2")}
                )
            }
        )
        told = {
            "good": SwitchState(Position.CLOSED, 1, 1, remote=True, lockout=False),
            "bad: lock-out relay operated": SwitchState(Position.CLOSED, 1, 1, lockout=True),
            "unknown: lockout": SwitchState(Position.CLOSED, 1, 1, remote=True),
        }
        assert {said: readiness(wired, state) for said, state in told.items()} == {said: said for said in told}
