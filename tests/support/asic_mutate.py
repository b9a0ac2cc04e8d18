"""What goes wrong with answers of miners, as changes to bytes: what was seen in the field, and worse."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

Mutation = Callable[[bytes, Random], bytes]

WORDS = [
    b"null",
    b"nan",
    b"-nan",
    b"inf",
    b"1e999",
    b"-1",
    b"0",
    b"99999999999999999999999999",
    b"-0.0",
    b"true",
    b"false",
    b'""',
    b'"-"',
    b'"58.94W"',
    b'"1e308"',
    b'"\\ud800"',
    b"[]",
    b"{}",
    b"[[]]",
    b'[null,{"a":[]},7]',
    b'{"0":{"0":{"0":0}}}',
    b'"' + b"A" * 5000 + b'"',
    b'"' + "қазақша ✓ \U0001f525".encode() + b'"',
    b'"<html>"',
    b'"\\u0000"',
    b'"2147483648"',
]
"""Values of every kind, put where another kind is expected."""
_VALUE = re.compile(rb"(?<=:)\s*(?:\"(?:[^\"\\]|\\.)*\"|-?[0-9.eE+]+|true|false|null)")
_PLAIN = rb"\s*(?:\"(?:[^\"\\]|\\.)*\"|-?[0-9.eE+]+|true|false|null)"
_KEY = re.compile(rb'"[^"\\]{1,40}"\s*:')
_FIELD = re.compile(rb"\[[^\[\]]{0,60}\]")


def other_value(data: bytes, random: Random) -> bytes:
    """A value becomes one of another kind."""
    found = list(_VALUE.finditer(data))
    if not found:
        return data
    at = random.choice(found)
    return data[: at.start()] + random.choice(WORDS) + data[at.end() :]


def other_values(data: bytes, random: Random) -> bytes:
    """Every value of one name becomes of another kind."""
    names = _KEY.findall(data)
    if not names:
        return data
    name, word = random.choice(names), random.choice(WORDS)
    return re.sub(
        re.escape(name) + rb"\s*(?:\"(?:[^\"\\]|\\.)*\"|-?[0-9.eE+]+|true|false|null)", lambda _: name + word, data
    )


def renamed(data: bytes, random: Random) -> bytes:
    """A name becomes another: a firmware that calls it otherwise."""
    names = _KEY.findall(data)
    return data.replace(random.choice(names), b'"x":', 1) if names else data


def list_for_object(data: bytes, random: Random) -> bytes:
    """An object becomes a list, or a list an object."""
    swap = random.choice([(b"{", b"["), (b"[", b"{"), (b"}", b"]"), (b"]", b"}")])
    at = [i for i in range(len(data)) if data[i : i + 1] == swap[0]]
    if not at:
        return data
    place = random.choice(at)
    return data[:place] + swap[1] + data[place + 1 :]


def field_seen(data: bytes, random: Random) -> bytes:
    """One of the things miners are known to send."""
    before, after = random.choice(
        [
            (b"},{", b"}{"),
            (b"[{", b"[,{"),
            (b"}", b",}"),
            (b',"', b'"'),
            (b'"', b"\\'"),
            (b" ", b"\n"),
            (b"0", b"nan"),
            (b"{", b',"id":1}{'),
            (b"}", b'}"}'),
            (b":", b"="),
        ]
    )
    return data.replace(before, after, random.choice([1, 1, 3, 1000]))


def cut(data: bytes, random: Random) -> bytes:
    """The tail is missing."""
    return data[: random.randrange(len(data) + 1)]


def flipped(data: bytes, random: Random) -> bytes:
    """Some bytes are others."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8, 64])):
        if changed:
            changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def repeated(data: bytes, random: Random) -> bytes:
    """A piece stands there many times."""
    if not data:
        return data
    start = random.randrange(len(data))
    end = min(len(data), start + random.choice([1, 8, 200]))
    return data[:end] + data[start:end] * random.choice([1, 3, 200]) + data[end:]


def spliced(data: bytes, random: Random) -> bytes:
    """A piece of it stands in another place."""
    if len(data) < 4:
        return data
    start, end = sorted(random.sample(range(len(data)), 2))
    place = random.randrange(len(data))
    return data[:place] + data[start:end] + data[place:]


def bracket_field(data: bytes, random: Random) -> bytes:
    """A field of an Avalon's string, and what looks like one."""
    found = list(_FIELD.finditer(data))
    if not found:
        return data
    at = random.choice(found)
    inside = random.choice(
        [b"[]", b"[-1]", b"[nan 1 2]", b"[" + b"9 " * 600 + b"]", b"[[0]]", b"[", b"[0 0 0 0 1e400]"]
    )
    return data[: at.start()] + inside + data[at.end() :]


def something_else(_: bytes, random: Random) -> bytes:
    """No answer of a miner at all."""
    return random.choice(
        [
            b"",
            b"\x00",
            b"{}",
            b"[]",
            b"null",
            b"7",
            b'"ok"',
            b"<!DOCTYPE html><html></html>",
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"HTTP/1.1 500 X\r\nContent-Length: 5\r\n\r\n{",
            b"Socket connect failed: Connection refused\n",
            b'{"STATUS":"E","When":1,"Code":14,"Msg":"invalid cmd","Description":"x"}',
            b'{"STATUS":[{"STATUS":"E","Code":45,"Msg":"Access denied"}]}\x00',
            b"STATUS=E,Code=14,Msg=x|",
            b"\xff\xfe" * 200,
            b"{" * 3000,
            b'{"a":' * 400,
            b"[" * 3000 + b"]" * 3000,
        ]
    )


MUTATIONS: tuple[Mutation, ...] = (
    other_value,
    other_value,
    other_value,
    other_values,
    other_values,
    renamed,
    list_for_object,
    field_seen,
    cut,
    flipped,
    repeated,
    spliced,
    bracket_field,
    something_else,
)


def mutated(data: bytes, random: Random) -> bytes:
    """A few changes, one after the other; the head of an HTTP answer keeps its length in step with its body, mostly."""
    head, found, body = data.partition(b"\r\n\r\n") if data.startswith(b"HTTP/") else (b"", b"", data)
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        body = random.choice(MUTATIONS)(body, random)[:300_000]
    if not found:
        return body
    if random.random() < 0.9:
        head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    else:
        head = random.choice(MUTATIONS)(head, random)
    return head + found + body
