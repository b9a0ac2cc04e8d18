"""Frames in a stream of bytes: answers are found, the rest is named and thrown away, nothing wrong is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.mbap import MbapReceiver, OutOfStep
from drivers.modbus.pdu import answer_length, read_request, write_coil_request, write_registers_request
from drivers.modbus.rtu import RtuReceiver, crc, frames_in, with_crc
from drivers.modbus.stray import ENOUGH_FRAMES, GONE_AFTER_S, MasterWatch, Stray, StrayKind

READ = bytes((7,)) + read_request(4, 52, 2)
ANSWER = bytes.fromhex("070404459a2000")
WRITE = bytes((3,)) + write_coil_request(0, 0xFF00)
OTHERS_READ = bytes((9,)) + read_request(3, 0, 2)
OTHERS_ANSWER = bytes.fromhex("090304deadbeef")


def mbap(number: int, frame: bytes) -> bytes:
    return number.to_bytes(2, "big") + bytes(2) + len(frame).to_bytes(2, "big") + frame


@pytest.fixture
def strays() -> list[Stray]:
    return []


@pytest.fixture
def line(strays: list[Stray]) -> RtuReceiver:
    return RtuReceiver(strays.append)


def test_the_check_sum_is_that_of_the_standard() -> None:
    assert crc(bytes.fromhex("0207")) == bytes.fromhex("4112")  # the standard's own example
    assert crc(bytes.fromhex("010300000001")) == bytes.fromhex("840a")


# -- Modbus TCP ------------------------------------------------------------------------------------------------------


def test_a_tcp_answer_is_found_in_any_pieces() -> None:
    for cut in range(1, len(ANSWER) + 6):
        receiver = MbapReceiver(lambda stray: None)
        sent = receiver.question(READ)
        whole = mbap(int.from_bytes(sent[:2], "big"), ANSWER)
        assert receiver.feed(whole[:cut]) is None
        assert receiver.feed(whole[cut:]) == ANSWER


def test_a_late_answer_a_foreign_one_and_another_units_are_named_and_not_taken(strays: list[Stray]) -> None:
    receiver = MbapReceiver(strays.append)
    first = int.from_bytes(receiver.question(READ)[:2], "big")
    receiver.give_up()
    second = int.from_bytes(receiver.question(READ)[:2], "big")
    others = mbap(0x7777, OTHERS_ANSWER)
    wrong_unit = mbap(second, bytes((8,)) + ANSWER[1:])
    assert receiver.feed(mbap(first, ANSWER) + others + wrong_unit) is None
    assert receiver.feed(mbap(second, ANSWER)) == ANSWER
    assert [s.kind for s in strays] == [StrayKind.LATE, StrayKind.FOREIGN, StrayKind.FOREIGN]
    assert receiver.feed(mbap(second, ANSWER)) is None  # the same answer again
    assert strays[-1].kind is StrayKind.FOREIGN


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400", bytes.fromhex("000100000000"), bytes.fromhex("00010000ffff01")])
def test_a_stream_out_of_step_is_said_to_be(junk: bytes) -> None:
    receiver = MbapReceiver(lambda stray: None)
    receiver.question(READ)
    with pytest.raises(OutOfStep, match="expected protocol 0"):
        receiver.feed(junk)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20))
def test_no_bytes_make_the_tcp_receiver_fail_or_grow(chunks: list[bytes]) -> None:
    receiver = MbapReceiver(lambda stray: None)
    receiver.question(READ)
    for chunk in chunks:
        try:
            frame = receiver.feed(chunk)
        except OutOfStep:
            return
        assert frame is None or frame[0] == READ[0]
        assert len(receiver._buffer) < 6 + 254


# -- RTU -------------------------------------------------------------------------------------------------------------


def test_an_rtu_answer_is_found_in_any_pieces_and_behind_noise(line: RtuReceiver, strays: list[Stray]) -> None:
    whole = with_crc(ANSWER)
    for cut in range(1, len(whole)):
        line.question(READ)
        assert line.feed(b"\x00\xff\x07" + whole[:cut]) is None
        assert line.feed(whole[cut:]) == ANSWER
    assert {s.kind for s in strays} == {StrayKind.NOISE}


def test_a_damaged_answer_is_never_taken_and_is_told_from_silence(line: RtuReceiver) -> None:
    whole = with_crc(ANSWER)
    for position in range(len(whole)):
        line.question(READ)
        broken = bytearray(whole)
        broken[position] ^= 0x10
        assert line.feed(bytes(broken)) is None
        assert line.give_up() is True
    line.question(READ)
    assert line.give_up() is False


def test_a_short_answer_is_known_as_broken_at_once(line: RtuReceiver) -> None:
    line.question(READ)
    line.feed(with_crc(ANSWER)[:5])
    assert line.broken


def test_exceptions_are_answers(line: RtuReceiver) -> None:
    line.question(READ)
    assert line.feed(with_crc(bytes((7, 0x84, 2)))) == bytes((7, 0x84, 2))


def test_an_answer_of_another_length_function_or_unit_is_not_ours(line: RtuReceiver, strays: list[Stray]) -> None:
    for wrong in ("07040645 9a2000 0000", "070304459a2000", "080404459a2000"):
        line.question(READ)
        assert line.feed(with_crc(bytes.fromhex(wrong))) is None
        line.give_up()
    assert StrayKind.FOREIGN in {s.kind for s in strays}


def test_a_late_answer_is_thrown_away_before_the_next_question(line: RtuReceiver, strays: list[Stray]) -> None:
    line.question(READ)
    assert line.give_up() is False
    assert line.feed(with_crc(ANSWER)) is None
    line.question(READ)
    assert strays == [Stray(StrayKind.LATE, ANSWER)]
    other = bytes.fromhex("07040447000000")
    assert line.feed(with_crc(other)) == other


def test_an_adapter_that_echoes_is_learned_and_its_echo_is_never_an_answer(
    line: RtuReceiver, strays: list[Stray]
) -> None:
    sent = line.question(READ)
    assert line.feed(sent) is None
    assert line.echo is True
    assert line.feed(with_crc(ANSWER)) == ANSWER
    # A dead relay behind such an adapter: the write comes back, and that is no acknowledgement.
    sent = line.question(WRITE)
    assert line.feed(sent[:3]) is None
    assert line.feed(sent[3:]) is None
    assert line.give_up() is False
    sent = line.question(WRITE)
    assert line.feed(sent + sent) == WRITE
    # Noise before the echo changes nothing.
    sent = line.question(WRITE)
    assert line.feed(b"\x00" + sent) is None
    assert line.feed(sent) == WRITE
    assert StrayKind.ECHO in {s.kind for s in strays}


def test_an_echo_alone_is_silence_not_damage(line: RtuReceiver) -> None:
    sent = line.question(READ)
    line.feed(sent)
    assert line.give_up() is False


def test_without_an_echo_a_write_is_answered_at_once(line: RtuReceiver) -> None:
    line.question(READ)
    line.feed(with_crc(ANSWER))
    assert line.echo is False
    sent = line.question(WRITE)
    assert line.feed(sent) == WRITE


def test_the_first_write_of_all_waits_for_a_second_repetition(line: RtuReceiver) -> None:
    sent = line.question(WRITE)
    assert line.feed(sent) is None
    assert line.held == WRITE
    assert line.feed(sent) == WRITE
    assert line.echo is True


def test_a_second_masters_frames_are_named_and_its_answer_is_not_taken_for_ours(
    line: RtuReceiver, strays: list[Stray]
) -> None:
    line.question(READ)
    line.feed(with_crc(ANSWER))
    strays.clear()
    line.feed(with_crc(OTHERS_READ) + with_crc(OTHERS_ANSWER))
    line.question(READ)
    assert strays == [Stray(StrayKind.FOREIGN, OTHERS_READ), Stray(StrayKind.FOREIGN, OTHERS_ANSWER)]
    # It asks the very unit we are asking: the answer that follows may be its own.
    same_unit = bytes((7,)) + read_request(4, 0, 2)
    assert line.feed(with_crc(same_unit) + with_crc(ANSWER)) is None
    assert line.feed(with_crc(ANSWER)) is None  # … or this one
    assert line.give_up() is True
    # Asked before us, as long as its answer may come: the same.
    line.feed(with_crc(same_unit))
    line.question(READ)
    assert line.feed(with_crc(ANSWER) + with_crc(ANSWER)) is None
    line.give_up()
    # A question that nobody answered is forgotten in time.
    line.feed(with_crc(same_unit))
    line.question(READ)
    line.now += 10.0
    assert line.feed(with_crc(ANSWER)) == ANSWER


def test_writes_of_several_registers_have_answers_of_their_own(line: RtuReceiver) -> None:
    request = bytes((7,)) + write_registers_request(100, (1, 2, 3))
    assert answer_length(request) == 6
    line.question(READ)
    line.feed(with_crc(ANSWER))
    line.question(request)
    assert line.feed(with_crc(request[:6])) == request[:6]


@given(st.lists(st.binary(min_size=1, max_size=400), max_size=12), st.booleans())
def test_no_bytes_make_the_line_receiver_fail_or_grow(chunks: list[bytes], asking: bool) -> None:
    receiver = RtuReceiver(lambda stray: None)
    if asking:
        receiver.question(READ)
    for chunk in chunks:
        frame = receiver.feed(chunk)
        assert frame is None or frame[:2] in {READ[:2], bytes((7, 0x84))}
        assert len(receiver._buffer) <= 1024


@given(
    st.lists(
        st.one_of(st.sampled_from([READ, ANSWER, OTHERS_READ, OTHERS_ANSWER]).map(with_crc), st.binary(max_size=6))
    )
)
def test_splitting_loses_no_byte(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert b"".join(with_crc(p) if whole else p for whole, p in frames_in(data)) == data


# -- a second master -------------------------------------------------------------------------------------------------


def test_a_second_master_is_told_from_a_single_odd_frame() -> None:
    watch = MasterWatch()
    assert not any(watch.foreign(100.0 * n) for n in range(10))
    assert not watch.present
    told = [watch.foreign(2000.0 + n) for n in range(ENOUGH_FRAMES + 2)]
    assert told.count(True) == 1
    assert watch.present
    assert not watch.gone(2010.0)
    assert watch.gone(2010.0 + GONE_AFTER_S)
    assert not watch.gone(2020.0 + GONE_AFTER_S)
    assert not watch.present
