"""Miners' damaged JSON: what is read, what is dropped, what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.asic.repair import MAX_DEPTH, MAX_REPAIR_BYTES, parse_answer, parse_strict
from drivers.errors import BadAnswer

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=6)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b'{"a":1}\x00', {"a": 1}),
        (b'{"a":1}\x00\n', {"a": 1}),
        (b'{"a":1}"}', {"a": 1}),
        (b'{"a":1}}]', {"a": 1}),
        (b'{"S":[{"a":1}{"b":2}]}', {"S": [{"a": 1}, {"b": 2}]}),
        (b'{"S":[{"u":"x}{y,}"}{"b":2}]}', {"S": [{"u": "x}{y,}"}, {"b": 2}]}),
        (b'{"S":[,{"a":1,}]}', {"S": [{"a": 1}]}),
        (b'{"a":nan,"b":-nan,"c":inf,"d":-inf,"e":NaN,"f":5}', dict.fromkeys("abcde", None) | {"f": 5}),
        (b'{"a":1e999}', {"a": None}),
        (b'{"v":"\\\'2020\\\'","n":1,}', {"v": "'2020'", "n": 1}),
        (b'{"t":"Nov 5\n2020"}', {"t": "Nov 5\n2020"}),
        (b'{"acs":"ooo""temp0":41}', {"acs": "ooo", "temp0": 41}),
        (b',"id":1}{"a":2}', {"a": 2}),
        (b'{"e":["131":"a","132":"b"]}', {"e": [{"131": "a"}, {"132": "b"}]}),
        (b'{"e":{"131","132"}}', {"e": {"131": None, "132": None}}),
        (b'{"w":58W,"n":1}', {"w": None, "n": 1}),
        (b'{"a":"\xff\xfe"}', {"a": "\ufffd\ufffd"}),
        (b'{"a":"\\ud800",}', {"a": "\ufffd"}),
    ],
)
def test_known_damage_is_read(sent: bytes, read: dict[str, object]) -> None:
    assert parse_answer(sent) == read


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b'{"a":1,"watts":34', {"a": 1}),
        (b'{"a":1,"name":"Antm', {"a": 1}),
        (b'{"a":1,"wat', {"a": 1}),
        (b'{"a":1,"watts":', {"a": 1}),
        (b'{"a":[1,2', {"a": [1]}),
        (b'{"a":[{"b":1', {"a": [{}]}),
    ],
)
def test_a_value_cut_off_is_dropped_and_never_shortened(sent: bytes, read: dict[str, object]) -> None:
    assert parse_answer(sent) == read


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x00",
        b"Socket connect failed: Connection refused\n",
        b"[1,2]",
        b'{"a":' * (MAX_DEPTH + 1),
        b"[" * 100_000,
        b"{a" + b" word" * 100 + b"}",
        b'{"a":' + b"[" * 40 + b"]" * 40 + b",}",
    ],
)
def test_what_is_no_answer_is_refused(sent: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse_answer(sent)


@pytest.mark.parametrize("way", [b'{"a":"%s","\\ud800":[{"b":"x\\udfff"}]}', b'{"a":"%s"}}', b'{"a":"%s" "b":nan}'])
def test_half_of_a_character_is_never_passed_on(way: bytes) -> None:
    read = parse_answer(way.replace(b"%s", b"\\ud800") + b"\x00junk")
    json.dumps(read, ensure_ascii=False).encode()
    assert read["a"] == "\ufffd"
    whole = parse_answer(b'{"a":"\\ud83d\\ude00","b":nan}')
    assert whole["a"] == "\U0001f600"


def test_cgminers_text_form_comes_in_the_shape_of_its_json() -> None:
    sent = (
        b"STATUS=S,When=735,Code=7,Msg=2 Pool(s)|POOL=0,URL=stratum+tcp://pool.example:3333,User=a.b,Status=Alive|"
        b"POOL=1,URL=,User=,Status=Dead|MM ID0=Ver[1346-116] SYSTEMSTATU[Work: In Work, Hash Board: 3 ],DNA=0201| \x00"
    )
    read = parse_answer(sent)
    assert read["STATUS"] == [{"STATUS": "S", "When": 735, "Code": 7, "Msg": "2 Pool(s)"}]
    assert [row["URL"] for row in read["POOLS"]] == ["stratum+tcp://pool.example:3333", ""]
    assert read["MM ID0"][0]["MM ID0"].endswith("Hash Board: 3 ]")
    assert read["MM ID0"][0]["DNA"] == "0201", "a leading zero belongs to the number"
    assert parse_answer(b"STATUS=S,When=1,Code=22|VERSION,CGMiner=4.11|")["VERSION"] == [{"CGMiner": "4.11"}]


def test_a_text_answer_cut_off_loses_its_last_value_and_does_not_shorten_it() -> None:
    cut = b"STATUS=S,When=1,Code=11|SUMMARY,Elapsed=735,MHS av=1188"
    assert parse_answer(cut)["SUMMARY"] == [{"Elapsed": 735}]


def test_size_is_bounded_for_whole_and_more_so_for_damaged_answers() -> None:
    long = b'{"a":"' + b"x" * MAX_REPAIR_BYTES + b'"'
    assert len(parse_answer(long + b"}")["a"]) == MAX_REPAIR_BYTES
    with pytest.raises(BadAnswer, match="repaired"):
        parse_answer(long + b",}")
    with pytest.raises(BadAnswer, match="at most"):
        parse_answer(long + b"}", max_bytes=1000)


def test_an_error_shows_little_of_the_answer() -> None:
    with pytest.raises(BadAnswer) as caught:
        parse_answer(b"x" * 32 + b"secret-wallet")
    assert "secret-wallet" not in str(caught.value)


def test_strict_reading_refuses_what_would_need_repair() -> None:
    assert parse_strict(b'{"a":1}\x00') == {"a": 1}
    for damaged in (b'{"a":1,}', b'{"a":1}x', b'{"a":nan}'):
        with pytest.raises(BadAnswer):
            parse_strict(damaged)


@given(OBJECTS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_correct_json_is_never_changed(value: dict[str, object]) -> None:
    assert parse_answer(json.dumps(value).encode()) == value


@given(OBJECTS, st.integers(0, 60), st.sampled_from([b"", b",", b"}", b"{", b"nan", b'"', b"\x00", b"]"]))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_json_gives_an_object_or_a_bad_answer(value: dict[str, object], at: int, junk: bytes) -> None:
    sent = json.dumps(value).encode()
    at = min(at, len(sent))
    _read_or_refused(sent[:at] + junk + sent[at + 1 :])
    _read_or_refused(sent[:at])


@given(st.binary(max_size=400) | st.text(alphabet='{}[],:"\\\n\x00 ntrueaif0123-.eE', max_size=200).map(str.encode))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_give_an_object_or_a_bad_answer(sent: bytes) -> None:
    _read_or_refused(sent)


def _read_or_refused(sent: bytes) -> None:
    try:
        read = parse_answer(sent)
    except BadAnswer:
        return
    assert isinstance(read, dict)
    json.dumps(read, allow_nan=False)
