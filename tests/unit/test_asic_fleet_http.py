"""HTTP as bytes: any cutting into packets gives the same answer, and nothing hostile is believed."""

from __future__ import annotations

import contextlib
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.asic.credentials import Credentials
from drivers.asic.digest import Digest
from drivers.asic.http_wire import MAX_HEAD_BYTES, NotHttp, Reply, _Reader, _reply, request_bytes
from drivers.errors import BadAnswer

ANSWERS = {
    "length": b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}',
    "chunks": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n5;x=y\r\n": 1}\r\n0\r\n\r\n',
    "end of stream": b'HTTP/1.0 200 OK\r\nServer: lighttpd\r\n\r\n{"a": 1}',
    "bare newlines": b'HTTP/1.1 200 OK\nContent-Length: 8\n\n{"a": 1}',
    "continue first": b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}',
    "more than announced": b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}\r\nHTTP/1.1 200 OK',
}


def fed(answer: bytes, cuts: list[int] | None = None) -> tuple[_Reader, bytes]:
    """What the exchange would return: up to the end that the reader finds, or all of it at the end of the stream."""
    reader, received = _Reader(), bytearray()
    edges = sorted({cut % (len(answer) + 1) for cut in cuts or []} | {len(answer)})
    begin = 0
    for edge in edges:
        before = len(received)
        received += answer[begin:edge]
        begin = edge
        end = reader(received, before)
        if end >= 0:
            return reader, bytes(received[:end])
    return reader, bytes(received)


def read(answer: bytes, cuts: list[int] | None = None, max_bytes: int = 1000) -> Reply:
    return _reply(*fed(answer, cuts), max_bytes)


@pytest.mark.parametrize("name", ANSWERS)
@given(cuts=st.lists(st.integers(0, 200), max_size=12))
def test_an_answer_is_the_same_however_it_is_cut(name: str, cuts: list[int]) -> None:
    reply = read(ANSWERS[name], cuts)
    assert (reply.status, reply.body) == (200, b'{"a": 1}')


@pytest.mark.parametrize("name", ["length", "chunks"])
def test_an_answer_cut_off_is_never_taken_for_a_whole_one(name: str) -> None:
    whole = ANSWERS[name]
    head = whole.index(b"\r\n\r\n") + 4
    last = whole.rindex(b"0\r\n\r\n") + 3 if name == "chunks" else len(whole)
    for upto in range(head, last - (1 if name == "chunks" else 0)):
        with pytest.raises(ConnectionResetError):
            read(whole[:upto])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"Socket connect failed: Connection refused\n\n\n",
        b'{"STATUS":"E"}\x00\r\n\r\n',
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 300,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (MAX_HEAD_BYTES + 1),
    ],
)
def test_what_is_no_http_is_said_to_be_none(answer: bytes) -> None:
    with pytest.raises(NotHttp):
        read(answer)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_no_bytes_raise_anything_but_what_is_documented(junk: bytes, cuts: list[int]) -> None:
    for answer in (
        junk,
        b"HTTP/1.1 200 OK\r\n" + junk,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + junk,
    ):
        with contextlib.suppress(BadAnswer, ConnectionResetError):
            read(answer, cuts)


def test_a_body_larger_than_allowed_is_refused() -> None:
    with pytest.raises(BadAnswer, match="larger than 7 bytes"):
        read(ANSWERS["chunks"], max_bytes=7)


def test_headers_keep_their_order_and_the_answer_shows_none_of_them() -> None:
    reply = read(b"HTTP/1.1 401 X\r\nSet-Cookie: a=secret\r\nset-cookie: b=2\r\nContent-Length: 6\r\n\r\nsecret")
    assert reply.all("set-cookie") == ("a=secret", "b=2")
    assert reply.header("nothing") is None
    assert "secret" not in repr(reply)


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("a", {}),
        ("/a", {"X": "y\r\nZ: secret"}),
        ("/a", {"X y": "z"}),
        ("/a", {"X": "\x00secret"}),
    ],
)
def test_a_request_that_would_break_its_shape_is_not_written(target: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="HTTP") as caught:
        request_bytes("GET", target, "10.0.0.1", 80, headers, None)
    assert "secret" not in str(caught.value)


def test_requests_name_host_port_and_length() -> None:
    wrote = request_bytes("POST", "/x?y=1", "fe80::1", 8080, {"A": "b"}, b"{}")
    assert wrote.startswith(b"POST /x?y=1 HTTP/1.1\r\nHost: [fe80::1]:8080\r\n")
    assert wrote.endswith(b"\r\nA: b\r\nContent-Length: 2\r\n\r\n{}")
    assert b"Host: 10.0.0.1\r\n" in request_bytes("GET", "/", "10.0.0.1", 80, {}, None)


# -- digest ------------------------------------------------------------------------------------------------------------

RFC = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616_come_out(algorithm: str, response: str) -> None:
    digest = Digest(Credentials("Mufasa", "Circle of Life"), cnonce=lambda: CNONCE)
    assert digest.header("GET", "/dir/index.html") is None
    assert digest.challenged(RFC.format(algorithm=algorithm))
    header = digest.header("GET", "/dir/index.html")
    assert header is not None
    assert f'response="{response}"' in header
    assert "nc=00000001" in header
    again = digest.header("GET", "/dir/index.html")
    assert again is not None
    assert "nc=00000002" in again


def test_the_example_of_rfc_2617_comes_out_where_the_server_names_no_algorithm() -> None:
    digest = Digest(Credentials("Mufasa", "Circle Of Life"), cnonce=lambda: "0a4f113b")
    assert digest.challenged(
        'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque=5'
    )
    header = digest.header("GET", "/dir/index.html")
    assert header is not None
    assert 'response="6629fae49393a05397450978507c4ef1"' in header
    assert "algorithm" not in header


def test_a_server_without_qop_is_answered_the_old_way() -> None:
    digest = Digest(Credentials("root", "root"))
    assert digest.challenged('Digest realm="antMiner Configuration", nonce="n"')
    header = digest.header("GET", "/x")
    assert header is not None
    assert "cnonce" not in header

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    assert f'response="{md5(md5("root:antMiner Configuration:root") + ":n:" + md5("GET:/x"))}"' in header


@pytest.mark.parametrize(
    "challenge",
    [
        None,
        "",
        "Basic realm=x",
        "Digest realm=x",
        'Digest nonce="n", algorithm=SHA-512-256',
        'Digest nonce="n", qop="auth-int"',
    ],
)
def test_challenges_that_cannot_be_answered_are_left_alone(challenge: str | None) -> None:
    digest = Digest(Credentials("u", "p"))
    assert not digest.challenged(challenge)
    assert digest.header("GET", "/") is None


@given(st.text(max_size=200), st.text(min_size=1, max_size=20))
def test_no_challenge_breaks_out_of_the_header_or_shows_the_password(challenge: str, realm: str) -> None:
    digest = Digest(Credentials('a"b', "sesame-open"))
    digest.challenged("Digest " + challenge)
    digest.challenged(f'Digest realm="{realm}", nonce="n"')
    header = digest.header("GET", "/") or ""
    assert "sesame-open" not in header + repr(digest)
    if header:
        assert re.match(r'Digest username="a\\"b", realm="', header)
