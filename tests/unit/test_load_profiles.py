"""Load profiles: what a file may say of them, how entries are read, and what hostile memories are worth."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
import yaml

from agent.metering.bookkeeping import Book, ends_of, slot_wh
from central.energy import as_dict, energy
from central.store.schema import intervals, metadata, records
from drivers.errors import BadFrame, ProfileError
from drivers.modbus.curve import CurveReader, NoProfile
from drivers.modbus.link import ModbusLink
from drivers.modbus.meter import MeterDevice
from drivers.modbus.pdu import READ_FILE, answer_length, check_answer, file_words, read_file_request
from drivers.modbus.rtu import RtuReceiver, with_crc
from drivers.modbus.scheduler import Answer
from drivers.profiles.curvecodec import Entry, decode_entry, encode_instant
from drivers.profiles.loadcurve import evidence
from drivers.profiles.loader import load_profile, parse_profile
from drivers.profiles.model import MeterProfile
from simulator.curve import ProfileMemory
from simulator.devices.meter import MeterUnit
from simulator.devices.modbus import answer_pdu
from simulator.faults import DeviceFaults
from wire.keys import SigningKey
from wire.quality import Quality
from wire.records import RecordLine

DATA = Path(__file__).parents[2] / "simulator" / "data"
RING, FILE = (yaml.safe_load((DATA / f"imagined_{n}.yaml").read_text()) for n in ("ring", "file"))
BEGAN_S = 1_790_000_100 // 900 * 900
PERIOD = 450


def profile(doc: dict[str, Any]) -> MeterProfile:
    found = parse_profile(yaml.safe_dump(doc), "x")
    assert isinstance(found, MeterProfile)
    return found


@dataclass
class Played:
    """A link on which one simulated meter answers at once, through the real frames."""

    unit: MeterUnit
    now_ms: Callable[[], int]
    asked: list[bytes] = field(default_factory=list)
    spoil: Callable[[bytes, bytes], bytes] = lambda _request, answer: answer

    async def exchange(self, device: MeterDevice, pdus: tuple[bytes, ...], **_more: Any) -> tuple[Answer, ...]:
        (pdu,) = pdus
        assert pdu[0] in device.functions
        self.asked.append(pdu)
        head = bytes([device.unit])
        request, answer = head + pdu, self.spoil(pdu, head + answer_pdu(self.unit, pdu))
        if answer[1] & 0x80:
            return (Answer(Quality.EXCEPTION, self.now_ms(), 0, request, answer, error="refused", sent=True),)
        try:
            check_answer(request, answer)
        except BadFrame as error:
            return (Answer(error.quality, self.now_ms(), 0, request, error=str(error), sent=True),)
        return (Answer(Quality.GOOD, self.now_ms(), 0, request, answer, sent=True),)


@dataclass
class Rig:
    doc: dict[str, Any]
    drift_ppm: float = 0.0

    def __post_init__(self) -> None:
        self.profile = profile(self.doc)
        self.now_s = float(BEGAN_S)
        assert self.profile.load_profile is not None
        self.memory = ProfileMemory(
            self.profile.load_profile, lambda: round(self.now_s * 1000), DeviceFaults(), drift_ppm=self.drift_ppm
        )
        self.period = self.memory.period_s
        self.wh = 10_000.0
        self.link = Played(MeterUnit(self.profile, dict, memory=self.memory), lambda: round(self.now_s * 1000))
        self.reader = CurveReader(cast("ModbusLink", self.link), MeterDevice("m", 1, self.profile))

    def run(self, periods: int, power_w: float = 8000.0) -> None:
        for _ in range(periods * 5):
            self.memory.advance(self.period / 5, self.wh, power_w)
            self.wh += power_w * self.period / 5 / 3600
            self.now_s += self.period / 5

    def end(self, number: int) -> int:
        """End of the period that ended so many ago."""
        return int(self.now_s) // self.period * self.period - number * self.period


@pytest.mark.parametrize("doc", [RING, FILE])
@pytest.mark.parametrize("periods", [3, 39, 40, 41, 97])
async def test_every_entry_that_the_memory_holds_is_found_by_its_time(doc: dict[str, Any], periods: int) -> None:
    rig = Rig(doc)
    rig.run(periods)
    held = min(periods - 1, 40)
    ends = [rig.end(n) for n in range(held)]
    clock = await rig.reader.clock()
    assert (clock.period_s, clock.offset_ms) == (rig.period, 0)
    found = await rig.reader.read(ends, clock)
    assert sorted(found.entries) == sorted(ends)
    assert found.refused == []
    assert len(rig.link.asked) < 20, "several entries in one request"
    lp = evidence(rig.reader.curve)
    if lp["wh"]["of"] == "period":
        assert {slot_wh([found.entries[end]], lp) for end in ends} <= {999, 1000, 1001}
    gone = await rig.reader.read([rig.end(held + 5)], await rig.reader.clock())
    assert (gone.entries, gone.seen_all) == ({}, True)


async def test_a_list_that_always_begins_with_the_newest_entry_is_read_backwards() -> None:
    doc = copy.deepcopy(RING)
    doc["load_profile"] |= {"order": "falling", "newest": 0}
    rig = Rig(doc)
    rig.run(50)
    found = await rig.reader.read([rig.end(0), rig.end(17)], await rig.reader.clock())
    assert sorted(found.entries) == [rig.end(17), rig.end(0)]


async def test_a_unit_that_refuses_several_entries_at_once_is_asked_one_by_one() -> None:
    rig = Rig(RING)
    rig.run(6)
    refuse = lambda pdu, answer: answer[:1] + bytes([pdu[0] | 0x80, 2]) if pdu[4] > 6 else answer  # noqa: E731
    rig.link.spoil = refuse
    found = await rig.reader.read([rig.end(1), rig.end(2)], await rig.reader.clock())
    assert len(found.entries) == 2


def put(rig: Rig, number: int, end_s: int, wh: int = 1000, status: int = 0) -> None:
    lp = evidence(rig.reader.curve)
    time = encode_instant(end_s - PERIOD, lp["time"], lp["zone_s"])
    rig.memory.words[number] = (*time, wh >> 16, wh & 0xFFFF, status)


HOSTILE: dict[str, tuple[Callable[[Rig], object], str]] = {
    "two of one time": (lambda r: put(r, 3, r.end(2), 77), "both end"),
    "off the grid": (lambda r: put(r, 7, r.end(2) + 60), "not on the grid"),
    "not whole": (lambda r: put(r, 7, r.end(2), status=1), "status"),
    "half written": (lambda r: put(r, 7, r.end(2), 0xFFFFFFFF), "is none"),
    "no date": (lambda r: r.memory.words.update({7: (0x2613, 0x4599, 0x9999, 0, 1, 0)}), "no date"),
    "no digits": (lambda r: r.memory.words.update({7: (0xABCD, 0, 0, 0, 1, 0)}), "no decimal digits"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_contradicts_itself_is_refused_with_what_was_seen(name: str) -> None:
    change, told = HOSTILE[name]
    rig = Rig(RING)
    rig.run(11)
    change(rig)
    found = await rig.reader.read([rig.end(2), rig.end(6)], await rig.reader.clock())
    assert rig.end(2) not in found.entries
    assert any(told in text for text in found.refused), found.refused


async def test_an_entry_of_the_future_is_refused() -> None:
    rig = Rig(RING)
    rig.run(11)
    put(rig, 10, rig.end(-3))
    found = await rig.reader.read([rig.end(-3)], await rig.reader.clock())
    assert found.entries == {}
    assert any("ahead of the meter's clock" in text for text in found.refused)


@pytest.mark.parametrize("doc", [RING, FILE])
async def test_answers_of_a_wrong_length_and_random_memories_give_nothing_false(doc: dict[str, Any]) -> None:
    rig = Rig(doc)
    rig.run(11)
    clock = await rig.reader.clock()
    rig.link.spoil = lambda _pdu, answer: answer[:-2]
    with pytest.raises(NoProfile):
        await rig.reader.read([rig.end(2)], clock)
    rng = random.Random(3)
    rig.link.spoil = lambda pdu, answer: (
        answer[: 5 if pdu[0] == READ_FILE else 3] + rng.randbytes(len(answer) - (5 if pdu[0] == READ_FILE else 3))
    )
    for _ in range(50):
        try:
            found = await rig.reader.read([rig.end(2)], clock)
        except NoProfile:
            continue
        assert found.entries == {}
    assert len(rig.link.asked) < 50 * 70, "bounded"


async def test_a_clock_that_drifts_is_seen() -> None:
    rig = Rig(RING, drift_ppm=1000.0)
    rig.run(40)
    assert (await rig.reader.clock()).offset_ms == pytest.approx(40 * PERIOD * 1000 * 0.001, abs=1000)


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no clock": (lambda c: c.pop("clock"), "clock"),
    "no period": (lambda c: c.pop("period_s"), "give it or 'period'"),
    "part outside": (lambda c: c["energy"].update(at=5), "words 5 to 6 of an entry that has 6"),
    "overlap": (lambda c: c["energy"].update(at=2), "overlaps another part"),
    "zone": (lambda c: c.update(utc_offset="Almaty"), "expected \"utc\" or an offset"),
    "file without number": (lambda c: c.update(read="file"), "a file has a number"),
    "falling without newest": (lambda c: c.update(order="falling"), "says where it begins"),
    "past the end": (lambda c: c.update(addr=65_500), "run past 65535"),
    "a write": (lambda c: c.update(select={"addr": 5, "write": 1}), "no such key"),
    "vector": (lambda c: c["tests"][0].update(wh=5001), "golden vector: seen"),
    "date": (lambda c: c["time"].update(bytes=["year", "month", "day", "hour", "hour", "second"]), "year to minute"),
    "too wide": (lambda c: c.update(words=70), "max_registers is 60"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_load_profile_that_cannot_be_is_refused(name: str) -> None:
    change, told = MISTAKES[name]
    doc = copy.deepcopy(RING)
    change(doc["load_profile"])
    with pytest.raises(ProfileError, match="load_profile") as caught:
        profile(doc)
    assert told in str(caught.value)


def test_no_shipped_model_claims_function_20_without_a_file() -> None:
    plain = load_profile("eastron-sdm630")
    assert isinstance(plain, MeterProfile)
    assert READ_FILE not in MeterDevice("m", 1, plain).functions
    assert READ_FILE in MeterDevice("m", 1, profile(FILE)).functions


def test_the_codings_of_time_go_both_ways() -> None:
    for doc in (RING, FILE):
        lp = evidence(cast("Any", profile(doc).load_profile))
        words = encode_instant(BEGAN_S, lp["time"], lp["zone_s"])
        entry = [0] * lp["words"]
        entry[lp["time"]["at"] : lp["time"]["at"] + lp["time"]["words"]] = words
        found = decode_entry(1, entry, lp, 450)
        assert found is not None
        assert found.end_s == BEGAN_S + (450 if lp["time"]["marks"] == "begin" else 0)


def test_function_20_on_the_wire_and_on_a_line() -> None:
    request = b"\x05" + read_file_request(3, 12, 4)
    assert request.hex() == "0514070600030" + "00c0004"
    answer = bytes.fromhex("05140a0906") + bytes(range(8))
    assert answer_length(request) == len(answer)
    assert file_words(request, answer) == (0x0001, 0x0203, 0x0405, 0x0607)
    for bad in (answer[:-1], answer[:4] + b"\x07" + answer[5:], b"\x06" + answer[1:]):
        with pytest.raises(BadFrame):
            check_answer(request, bad)
    line = RtuReceiver(lambda _stray: None)
    line.question(request)
    assert line.feed(b"\x00" + with_crc(answer)[:6]) is None
    assert line.feed(with_crc(answer)[6:]) == answer


def test_the_book_wants_gaps_before_checks_and_nothing_of_another_meter() -> None:
    book = Book(900)
    bind = {"ty": "bind", "device": "d", "sn": "1", "ct": 1, "vt": 1, "pts": {}, "open": {"rt": 900_000_500}, "at": 1}
    base = 900_000
    book.take(0, bind)
    for n, why in enumerate(("TIMEOUT", "COUNTER_RESET", "DE_ENERGISED", "AGENT_DOWN"), 1):
        book.take(n, {"ty": "gap", "t0": base + n * 900, "why": why})
    book.take(5, {"ty": "interval", "t0": base})
    assert book.wanted(base + 10_000, 9) == [base + 900, base + 3600]
    assert book.wanted(base + 1900, 9) == [base + 900]
    book.take(6, {"ty": "archive", "t0": base + 900})
    book.take(7, {"ty": "archive", "t0": base + 3600})
    assert book.wanted(base + 10_000, 9) == [base], "now the check"
    book.take(8, bind | {"sn": "2", "open": {"rt": (base + 4500) * 1000}})
    assert book.wanted(base + 10_000, 9) == []


def test_slots_of_several_entries_need_all_of_them_and_a_register_needs_both_edges() -> None:
    assert ends_of(900, 900, 300, "period") == (1200, 1500, 1800)
    assert ends_of(900, 900, 900, "register") == (900, 1800)
    assert ends_of(900, 900, 3600, "period") == ends_of(900, 900, 600, "period") == ()
    wh = {"enc": "u32", "words": 2, "order": "big", "lsb": {"num": 1, "den": 3}, "of": "period"}
    entries = [Entry(n, n, bits) for n, bits in enumerate((10, 10, 10))]
    assert slot_wh(entries, {"wh": wh}) == 10, "thirds are summed before they are rounded"
    register = wh | {"of": "register", "roll": 300}
    assert slot_wh([Entry(0, 0, 297), Entry(1, 1, 6)], {"wh": register}) == 3
    assert slot_wh([Entry(0, 0, 20), Entry(1, 1, 6)], {"wh": register}) is None, "a reset is no rollover"


def test_central_counts_an_archived_gap_as_known_from_the_profile() -> None:
    engine, key = sa.create_engine("sqlite://"), SigningKey.generate()
    metadata.create_all(engine)
    hour = 1_790_000_100 // 3600 * 3600
    common = {"v": 1, "log": "l", "st": "mp:M1", "a": None, "mono": 1, "boot": "b", "clk": {}, "fw": "1"}
    docs: list[dict[str, Any]] = [{"ty": "bind", "inverted": False, "pts": {}, "sn": None}]
    for n in range(4):
        slot = {"t0": hour + n * 900, "t1": hour + n * 900 + 900}
        read = {"ty": "interval", "wh": 100, "exp_wh": None, "q": [], "cfg": "c"}
        docs.append(slot | (read if n != 1 else {"ty": "gap", "why": "AGENT_DOWN", "tries": 0}))
    told = {"ty": "archive", "t0": hour + 900, "t1": hour + 1800, "wh": 120, "src": "profile", "cfg": "c"}
    with engine.begin() as connection:
        for archived in (False, True):
            for n, doc in enumerate([*docs, told]) if archived else enumerate(docs):
                if archived and n < len(docs):
                    continue
                line = RecordLine.sign(common | {"n": n, "p": "0" * 64 if n else None, "at": hour * 1000} | doc, key)
                row = {"site": "s", "epoch": "e", "stream": "mp:M1", "n": n, "ty": doc["ty"], "at": hour * 1000}
                row |= {"hash": line.hash.hex(), "line": line.encode(), "verified": True, "received_at": 1}
                connection.execute(records.insert().values(row))
                if doc["ty"] in {"interval", "gap"}:
                    slot_row = {"site": "s", "epoch": "e", "mp": "M1", "n": n, "t0_s": doc["t0"], "t1_s": doc["t1"]}
                    connection.execute(intervals.insert().values(slot_row | {"kind": doc["ty"], "flags": ""}))
            (found,) = energy(connection, "s", ["M1"], 900, hour, hour + 3600, "hour")
            said = as_dict(found)
            period = said["periods"][0]
            if archived:
                assert (period["import_wh"], period["profile_wh"], said["method"]) == (420, 120, "profile")
            else:
                assert (period["import_wh"], period["profile_wh"], said["method"]) == (None, 0, "snapshots")
