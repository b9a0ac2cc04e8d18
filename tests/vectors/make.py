"""Writes the vectors of the contract: ``python tests/vectors/make.py``.

Everything is deterministic: keys come from fixed seeds and Ed25519 signatures have one value. The keys are for these
files alone; their seeds are public and they must never sign anything else.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import msgspec  # noqa: E402 - path set above
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402 - path set above

from wire import batch, canonical, energy  # noqa: E402 - path set above
from wire.checkpoints import Checkpoint, cosign  # noqa: E402 - path set above
from wire.dsse import ORDER_TYPE, RECORD_TYPE, pae, seal  # noqa: E402 - path set above
from wire.errors import NotCanonical  # noqa: E402 - path set above
from wire.keys import SigningKey  # noqa: E402 - path set above
from wire.names import origin  # noqa: E402 - path set above
from wire.notes import Note  # noqa: E402 - path set above
from wire.orders import parse_order  # noqa: E402 - path set above
from wire.quality import CODES, Quality  # noqa: E402 - path set above
from wire.records import RecordLine  # noqa: E402 - path set above
from wire.registry import KeysDocument, sign_keys  # noqa: E402 - path set above

Doc = dict[str, Any]
NOW = 1_795_000_000_000
SITE, EPOCH = "kz-vector-1", "e1-0a0b0c0d"


def seed(name: str) -> bytes:
    """Seed of a vector key: SHA-256 of its public name."""
    return hashlib.sha256(f"tizgin vector key {name}".encode()).digest()


def key(name: str) -> SigningKey:
    """A vector key."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed(name)))


def keys() -> Doc:
    """All keys that sign here."""
    names = ("record", "log", "registrar", "dispatcher_1", "dispatcher_2")
    return {
        "note": "Seeds are public. These keys sign vectors and nothing else.",
        "keys": [
            {"name": n, "seed_hex": seed(n).hex(), "public_b64": key(n).public.text, "kid": key(n).kid} for n in names
        ],
    }


def canonical_json() -> Doc:
    """Documents with their bytes, and bytes that must be refused."""
    documents: list[Doc] = [
        {},
        {"b": 2, "a": 1, "_": 0, "a0": -1},
        {"n": [0, -1, canonical.MAX_INT, -canonical.MAX_INT, True, False, None]},
        {"kk": "Қазақстан", "ru": "Экибастуз", "sign": "€", "plane_1": "😀", "del": "\x7f", "ls": "\u2028"},
        {"escapes": '\x00\x08\t\n\x0b\x0c\r\x1f"\\/'},
        {"nested": {"z": {"y": [[], {}, [{"x": None}]]}, "a": ""}},
    ]
    refused = [
        ("key order", b'{"b":1,"a":2}'),
        ("space", b'{"a": 1}'),
        ("line end", b'{"a":1}\n'),
        ("key twice", b'{"a":1,"a":1}'),
        ("float", b'{"a":1.0}'),
        ("exponent", b'{"a":1e2}'),
        ("overflow", b'{"a":1e400}'),
        ("not a number", b'{"a":NaN}'),
        ("minus zero", b'{"a":-0}'),
        ("54 bits", b'{"a":9007199254740992}'),
        ("lone surrogate escaped", b'{"a":"\\ud800"}'),
        ("lone surrogate in UTF-8", b'{"a":"\xed\xa0\x80"}'),
        ("not UTF-8", b'{"a":"\xff"}'),
        ("byte order mark", b'\xef\xbb\xbf{"a":1}'),
        ("needless escape", b'{"a":"\\u0061"}'),
        ("upper-case hex", b'{"a":"\\u001F"}'),
        ("upper-case key", b'{"A":1}'),
        ("empty key", b'{"":1}'),
        ("not an object", b"[]"),
        ("17 levels", b'{"a":' * 17 + b"0" + b"}" * 17),
    ]
    for why, data in refused:
        try:
            canonical.decode(data)
        except NotCanonical:
            continue
        raise AssertionError(f"{why}: taken")
    return {
        "accepted": [{"document": d, "hex": canonical.encode(d).hex()} for d in documents],
        "refused": [{"why": why, "hex": data.hex()} for why, data in refused],
    }


def pae_encoding() -> Doc:
    """Pre-authentication encodings; the first is the example of the DSSE protocol document."""
    cases = [
        ("http://example.com/HelloWorld", b"hello world"),
        ("", b""),
        (ORDER_TYPE, b"{}"),
        (RECORD_TYPE, '{"a":"€"}'.encode()),
    ]
    return {"cases": [{"type": t, "body_hex": b.hex(), "pae_hex": pae(t, b).hex()} for t, b in cases]}


def _common(stream: str, n: int, p: str | None, ty: str, **fields: Any) -> Doc:
    return {
        "v": 1,
        "log": f"tizgin/{SITE}/{EPOCH}",
        "st": stream,
        "n": n,
        "p": p,
        "a": None,
        "ty": ty,
        "at": NOW + n,
        "mono": 1_000_000 + n,
        "boot": "00112233445566ff",
        "clk": {"s": "S", "src": "kernel", "off_us": None},
        "fw": "1.0.0",
        **fields,
    }


def records() -> Doc:
    """Two chained record lines of one stream."""
    signer = key("record")
    genesis = _common(
        "site",
        0,
        None,
        "genesis",
        site=SITE,
        slot_s=900,
        k_rec=signer.public.text,
        k_log=key("log").public.text,
        prev=None,
        simulation=True,
        contracted_w=5_000_000,
        emergency_w=300_000,
    )
    first = RecordLine.sign(genesis, signer)
    event = _common("site", 1, first.hash.hex(), "event", ev="switch_position", obj="KM1|Қ", was="closed", now="open")
    second = RecordLine.sign(event, signer)
    return {
        "public_b64": signer.public.text,
        "lines": [
            {"line": line.encode().decode(), "leaf_hash_hex": line.hash.hex(), "payload": json.loads(line.payload)}
            for line in (first, second)
        ],
    }


def orders() -> Doc:
    """Envelopes: one signature, two signatures, a release; and one whose second signature is wrong."""
    one, two = key("dispatcher_1"), key("dispatcher_2")
    limit: Doc = {
        "v": 1,
        "id": "019a0000-0000-7000-8000-000000000001",
        "site": SITE,
        "epoch": EPOCH,
        "seq": 1,
        "action": "limit",
        "limit_w": 1_500_000,
        "issued_at": NOW,
        "execute_by": NOW + 120_000,
        "expires_at": NOW + 3_600_000,
        "hold": {"until_released": True},
        "escalation": {"to": "switch", "after_s": 30},
        "methods": ["sleep", "switch"],
        "basis": {"code": "deficit", "dispatch_no": "17/4", "text": "Дефицит мощности"},
    }
    release: Doc = {k: v for k, v in limit.items() if k not in {"limit_w", "hold", "escalation", "methods"}} | {
        "id": "019a0000-0000-7000-8000-000000000002",
        "seq": 2,
        "action": "release",
        "target": limit["id"],
    }
    stop = limit | {"id": "019a0000-0000-7000-8000-000000000003", "seq": 3, "action": "stop"}
    stop.pop("limit_w")
    known = Checkpoint(origin(SITE, EPOCH), 7, bytes(range(32)))
    own = known.sign(key("log"))
    seen = Note(own.text, (*own.signatures, cosign(own.text, "so.example", key("witness"), NOW // 1000)))
    trip = stop | {"id": "019a0000-0000-7000-8000-000000000004", "seq": 4, "action": "emergency_trip"}
    trip |= {"methods": ["switch"], "seen": seen.encode().decode()}
    found = []
    for name, document, signers in (
        ("limit, one signature", limit, (one,)),
        ("stop, two signatures", stop, (one, two)),
        ("release", release, (two,)),
        ("emergency trip that names a checkpoint", trip, (one,)),
    ):
        raw = seal(ORDER_TYPE, canonical.encode(document), *signers).encode()
        signed = parse_order(raw)
        found.append(
            {
                "name": name,
                "document": document,
                "envelope": raw.decode(),
                "payload_sha256_hex": signed.digest,
                "kids": [s.kid for s in signers],
            }
        )
    broken = seal(ORDER_TYPE, canonical.encode(limit), one, two)
    wrong = bytearray(broken.signatures[1][1])
    wrong[0] ^= 1
    refused = type(broken)(broken.payload_type, broken.payload, (broken.signatures[0], (two.kid, bytes(wrong))))
    return {
        "public_b64": {k.kid: k.public.text for k in (one, two)},
        "orders": found,
        "refused": [{"why": "the second signature does not verify", "envelope": refused.encode().decode()}],
    }


def register() -> Doc:
    """A register signed by the registrar."""
    issuers = [
        {
            "kid": key(name).kid,
            "key": key(name).public.text,
            "person": person,
            "rights": ["limit", "stop", "release", "mode", "commission"],
            "sites": [SITE],
            "zones": [],
            "solo_w": 2_000_000,
            "valid_from": NOW,
            "valid_to": NOW + 31_536_000_000,
        }
        for name, person in (("dispatcher_1", "aigul"), ("dispatcher_2", "daniyar"))
    ]
    body = {
        "v": 1,
        "version": 7,
        "issued_at": NOW,
        "persons": [
            {"id": "aigul", "name": "Айгүл", "organisation": "SO", "role": "system_operator"},
            {"id": "daniyar", "name": "Данияр", "organisation": "DC", "role": "site"},
        ],
        "issuers": issuers,
        "sites": [
            {
                "id": SITE,
                "zone": "north",
                "contracted_w": 5_000_000,
                "emergency_w": 300_000,
                "slot_s": 900,
                "simulation": True,
                "epochs": [{"epoch": EPOCH, "k_rec": key("record").public.text, "k_log": key("log").public.text}],
                "points": [{"id": "M0", "role": "commercial", "boundary": True, "ct_num": 400, "ct_den": 5}],
            }
        ],
        "revoked": [{"kid": key("dispatcher_2").kid, "at": NOW + 86_400_000, "reason": "left"}],
    }
    document = KeysDocument.model_validate_json(canonical.encode(body))
    return {
        "registrar_public_b64": key("registrar").public.text,
        "document": json.loads(document.encode()),
        "envelope": sign_keys(document, key("registrar")).decode(),
    }


def batches() -> Doc:
    """A batch as JSON and as packed once; a packer may choose another level, so readers compare the JSON."""
    good, none, timeout = CODES[Quality.GOOD], CODES[Quality.NO_VALUE], CODES[Quality.TIMEOUT]
    meters = batch.PartBuilder("meter", none)
    meters.add("em-0", NOW, {"power_w": (5000.5, good), "energy_import_wh": (123_456_789, good)})
    meters.add("em-1", NOW + 20, {"power_w": (None, timeout)})
    meters.add("em-0", NOW + 1000, {"power_w": (0.0, good), "energy_import_wh": (123_456_790, good)})
    miners = batch.PartBuilder("asic", none)
    miners.add("rack1/1", NOW + 5, {"hashrate_ths": (199.5, good), "sleeping": (0, good)})
    made = batch.Batch(1, SITE, EPOCH, "00112233445566ff", 3, NOW, "S", [meters.build(NOW), miners.build(NOW)])
    packed = batch.encode(made)
    return {
        "quality_codes": {str(q): code for q, code in CODES.items()},
        "rows": made.rows(),
        "values": made.values(),
        "json": msgspec.to_builtins(made),
        "packed_hex": packed.hex(),
    }


def energies() -> Doc:
    """Register bits, decode maps, exact values (numerator, denominator) and intervals."""
    maps = {
        "f32 kWh": {"enc": "f32", "words": 2, "lsb": {"num": 1000, "den": 1}},
        "u32 0.1 kWh with CT 400/5 outside the meter": {"enc": "u32", "words": 2, "lsb": {"num": 8000, "den": 1}},
        "i64 Wh": {"enc": "i64", "words": 4, "lsb": {"num": 1, "den": 1}},
        "bcd 0.01 kWh": {"enc": "bcd", "words": 4, "lsb": {"num": 10, "den": 1}},
        "mod10k kWh": {"enc": "mod10k", "words": 3, "lsb": {"num": 1000, "den": 1}},
        "u16 thirds": {"enc": "u16", "words": 1, "lsb": {"num": 1, "den": 3}},
    }
    readings = {
        "f32 kWh": [0x3DCCCCCD, 0x449A522B, 0x449A5240, 0x7FC00000],
        "u32 0.1 kWh with CT 400/5 outside the meter": [0, 12_345, 2**32 - 1],
        "i64 Wh": [2**64 - 5, 0, 7],
        "bcd 0.01 kWh": [0x0000000012345678, 0x0000000012345700, 0x000000000000000A],
        "mod10k kWh": [(12 << 32) | (3456 << 16) | 7890, (12 << 32) | (3456 << 16) | 7999, 10_000],
        "u16 thirds": [0, 1, 2, 3, 4],
    }
    cases = []
    for name, mapping in maps.items():
        full = {"fc": 4, "addr": 0, "order": "big", **mapping}
        values = [energy.primary_wh(bits, full) for bits in readings[name]]
        cases.append(
            {
                "name": name,
                "map": full,
                "readings": [
                    {"bits_hex": f"{bits:x}", "wh": None if v is None else [str(v.numerator), str(v.denominator)]}
                    for bits, v in zip(readings[name], values, strict=True)
                ],
                "interval_wh": [
                    energy.interval_wh(a, b, full) for a, b in zip(readings[name][:-1], readings[name][1:], strict=True)
                ],
            }
        )
    return {"cases": cases}


def everything() -> dict[str, str]:
    """File name → text of every vector file."""
    parts = {
        "keys": keys(),
        "canonical": canonical_json(),
        "pae": pae_encoding(),
        "records": records(),
        "orders": orders(),
        "register": register(),
        "batch": batches(),
        "energy": energies(),
    }
    return {f"{name}.json": json.dumps(doc, ensure_ascii=True, indent=1) + "\n" for name, doc in parts.items()}


if __name__ == "__main__":
    for name, text in everything().items():
        (HERE / name).write_text(text)
