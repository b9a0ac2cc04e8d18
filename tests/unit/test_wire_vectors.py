"""The committed vectors are what this code makes, and a reader that shares no code with it agrees with them.

The functions below are a second implementation from the text of the contract alone: standard library and
``cryptography`` (and a zstd decompressor), nothing of ``wire``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import runpy
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wire import batch

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = sorted(path.name for path in VECTORS.glob("*.json"))


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


# what the files are -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    found: dict[str, str] = runpy.run_path(str(VECTORS / "make.py"))["everything"]()
    return found


def test_no_vector_file_is_missing_or_left_over(made: dict[str, str]) -> None:
    assert sorted(made) == FILES


@pytest.mark.parametrize("name", FILES)
def test_committed_vectors_are_what_the_code_makes(made: dict[str, str], name: str) -> None:
    committed, fresh = (json.loads(text) for text in ((VECTORS / name).read_text(), made[name]))
    if name == "batch.json":  # the bytes of a zstd frame are the library's choice, its content is not
        committed["packed_hex"], fresh["packed_hex"] = (
            batch.decode(bytes.fromhex(doc["packed_hex"])) for doc in (committed, fresh)
        )
    assert committed == fresh


# a second implementation ---------------------------------------------------------------------------------------------


class Refused(Exception):
    """What the second implementation does not take."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise Refused("key twice")
    for key, _ in pairs:
        if not key or set(key) - set("abcdefghijklmnopqrstuvwxyz0123456789_"):
            raise Refused("key")
    return dict(pairs)


def _refuse(text: str) -> Any:
    raise Refused(text)


ESCAPES = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def write(value: Any, depth: int = 0) -> str:
    """RFC 8785 by hand for the subset without floats."""
    if depth > 16:
        raise Refused("deep")
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        if abs(value) >= 2**53:
            raise Refused("53 bits")
        return str(value)
    if isinstance(value, str):
        if any(0xD800 <= ord(c) < 0xE000 for c in value):
            raise Refused("surrogate")
        return '"' + "".join(ESCAPES.get(ord(c), f"\\u{ord(c):04x}" if ord(c) < 32 else c) for c in value) + '"'
    if isinstance(value, list):
        return "[" + ",".join(write(item, depth + 1) for item in value) + "]"
    members = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
    return "{" + ",".join(f"{write(key, depth)}:{write(item, depth + 1)}" for key, item in members) + "}"


def read(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_object, parse_float=_refuse, parse_constant=_refuse)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Refused(str(error)) from None
    if not isinstance(value, dict) or write(value) != text:
        raise Refused("not canonical")
    return value


def signed_bytes(kind: str, body: bytes) -> bytes:
    name = kind.encode()
    return b" ".join((b"DSSEv1", str(len(name)).encode(), name, str(len(body)).encode(), body))


def strict64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise Refused("base64")
    return data


def kid(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def check(public_b64: str, kind: str, body: bytes, signature: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(strict64(public_b64)).verify(signature, signed_bytes(kind, body))
    except InvalidSignature:
        raise Refused("signature") from None


def open_and_check(envelope: str, publics: dict[str, str], kind: str) -> tuple[dict[str, Any], list[str]]:
    doc = json.loads(envelope)
    assert set(doc) == {"payloadType", "payload", "signatures"}
    assert doc["payloadType"] == f"application/vnd.tizgin.{kind}.v1+json"
    body = strict64(doc["payload"])
    for entry in doc["signatures"]:
        check(publics[entry["keyid"]], doc["payloadType"], body, strict64(entry["sig"]))
    return read(body), [entry["keyid"] for entry in doc["signatures"]]


def test_keys() -> None:
    for entry in load("keys")["keys"]:
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(entry["seed_hex"]))
        public = private.public_key().public_bytes_raw()
        assert base64.b64encode(public).decode() == entry["public_b64"]
        assert kid(public) == entry["kid"]


def test_canonical_documents() -> None:
    for case in load("canonical")["accepted"]:
        data = bytes.fromhex(case["hex"])
        assert write(case["document"]).encode() == data
        assert read(data) == case["document"]


@pytest.mark.parametrize("case", load("canonical")["refused"], ids=lambda case: str(case["why"]))
def test_canonical_refusals(case: dict[str, str]) -> None:
    with pytest.raises(Refused):
        read(bytes.fromhex(case["hex"]))


def test_pre_authentication_encodings() -> None:
    cases = load("pae")["cases"]
    assert bytes.fromhex(cases[0]["pae_hex"]) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    for case in cases:
        assert signed_bytes(case["type"], bytes.fromhex(case["body_hex"])).hex() == case["pae_hex"]


def test_record_lines() -> None:
    vectors = load("records")
    previous: str | None = None
    for n, entry in enumerate(vectors["lines"]):
        head, rest = entry["line"].split("|", 1)
        body, signer, signature = rest.rsplit("|", 2)
        payload = body.encode()
        assert head == "TZR1"
        assert read(payload) == entry["payload"]
        assert signer == kid(strict64(vectors["public_b64"]))
        check(vectors["public_b64"], "application/vnd.tizgin.record.v1+json", payload, strict64(signature))
        leaf = hashlib.sha256(b"\x00" + payload).hexdigest()
        assert leaf == entry["leaf_hash_hex"]
        assert (entry["payload"]["n"], entry["payload"]["p"]) == (n, previous)
        previous = leaf
        with pytest.raises(Refused):
            check(vectors["public_b64"], "application/vnd.tizgin.order.v1+json", payload, strict64(signature))


def test_order_envelopes() -> None:
    vectors = load("orders")
    for public_kid, text in vectors["public_b64"].items():
        assert kid(strict64(text)) == public_kid
    for case in vectors["orders"]:
        document, signers = open_and_check(case["envelope"], vectors["public_b64"], "order")
        assert document == case["document"]
        assert signers == case["kids"]
        body = strict64(json.loads(case["envelope"])["payload"])
        assert hashlib.sha256(body).hexdigest() == case["payload_sha256_hex"]
    for case in vectors["refused"]:
        with pytest.raises(Refused):
            open_and_check(case["envelope"], vectors["public_b64"], "order")


def test_register() -> None:
    vectors = load("register")
    registrar = vectors["registrar_public_b64"]
    document, _ = open_and_check(vectors["envelope"], {kid(strict64(registrar)): registrar}, "keys")
    assert document == vectors["document"]
    for issuer in document["issuers"]:
        assert kid(strict64(issuer["key"])) == issuer["kid"]


def test_batch() -> None:
    vectors = load("batch")
    packed = bytes.fromhex(vectors["packed_hex"])
    assert packed[:4] == b"TZB1"
    document = json.loads(zstandard.ZstdDecompressor().decompress(packed[4:]))
    assert document == vectors["json"]
    assert sum(len(part["row"]) for part in document["parts"]) == vectors["rows"]
    assert sum(len(part["row"]) * len(part["cols"]) for part in document["parts"]) == vectors["values"]
    cells = {}
    for part in document["parts"]:
        for point, column in part["cols"].items():
            for i, device in enumerate(part["row"]):
                code = column["q"][i] if isinstance(column["q"], list) else column["q"]
                cells[part["dev"][device], point, document["t0"] + part["dt"][i]] = (column["v"][i], code)
    t0, codes = document["t0"], vectors["quality_codes"]
    assert cells["em-0", "power_w", t0] == (5000.5, codes["good"])
    assert cells["em-0", "power_w", t0 + 1000] == (0, codes["good"])
    assert cells["em-1", "power_w", t0 + 20] == (None, codes["timeout"])
    assert cells["em-1", "energy_import_wh", t0 + 20] == (None, codes["no_value"])
    assert cells["rack1/1", "hashrate_ths", t0 + 5] == (199.5, codes["good"])


def exact(bits: int, enc: str, words: int) -> Fraction | None:
    """Number of raw bits, written from the contract: IEEE 754 by sign, exponent and fraction."""
    if enc in {"f32", "f64"}:
        exponent_bits, fraction_bits, bias = (8, 23, 127) if enc == "f32" else (11, 52, 1023)
        exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1)
        fraction = bits & ((1 << fraction_bits) - 1)
        if exponent == (1 << exponent_bits) - 1:
            return None
        whole = fraction | (1 << fraction_bits) if exponent else fraction
        sign = -1 if bits >> (fraction_bits + exponent_bits) else 1
        return sign * whole * Fraction(2) ** (max(exponent, 1) - bias - fraction_bits)
    groups = [bits >> (16 * i) & 0xFFFF for i in reversed(range(words))]
    if enc == "mod10k":
        return None if max(groups) > 9999 else Fraction(int("".join(f"{g:04d}" for g in groups)))
    if enc == "bcd":
        digits = "".join(f"{g:04x}" for g in groups)
        return Fraction(int(digits)) if set(digits) <= set("0123456789") else None
    packed = struct.pack(f">{words}H", *groups)
    return Fraction(int.from_bytes(packed, "big", signed=enc[0] == "i"))


@pytest.mark.parametrize("case", load("energy")["cases"], ids=lambda case: str(case["name"]))
def test_energy(case: dict[str, Any]) -> None:
    mapping = case["map"]
    values: list[Fraction | None] = []
    for reading in case["readings"]:
        value = exact(int(reading["bits_hex"], 16), mapping["enc"], mapping["words"])
        if value is not None:
            value = value * mapping["lsb"]["num"] / mapping["lsb"]["den"]
        expected = reading["wh"]
        assert value == (None if expected is None else Fraction(int(expected[0]), int(expected[1])))
        values.append(value)
    for i, wh in enumerate(case["interval_wh"]):
        a, b = values[i], values[i + 1]
        assert wh == (None if a is None or b is None else math.floor(b) - math.floor(a))


def test_the_energy_vectors_hold_readings_and_no_readings() -> None:
    whs = [reading["wh"] for case in load("energy")["cases"] for reading in case["readings"]]
    assert None in whs
    assert any(wh is not None and wh[1] != "1" for wh in whs)
