"""Attacks 39 and 40: hostile files, and a machine with a wrong clock and no network.

Continues ``test_verifier_attacks_two.py``; ``docs/verification.md`` lists them all.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_kit import EPOCH, Site, codes, framed, fresh, gap, good_site, judged, ordered, signed_line, zipped

from wire import canonical
from wire.dsse import KEYS_TYPE, MANIFEST_TYPE, seal
from wire.notes import Note, parse_note

NOTES, M1 = f"log/{EPOCH}.notes", f"records/{EPOCH}/mp_M1.tzr"


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


@pytest.fixture
def site(template: Site) -> Site:
    return fresh(template)


# hostile files -------------------------------------------------------------------------------------------------------


def hostile_record(payload: bytes) -> Callable[[Site], bytes]:
    def make(site: Site) -> bytes:
        files = site.files()
        return site.pack(ordered(files | {M1: files[M1] + signed_line(site, payload)}))

    return make


def many_signatures(site: Site) -> bytes:
    note = parse_note(site.signed().notes[0])
    many = Note(note.text, note.signatures * 40).encode()
    return site.pack(ordered(site.files() | {NOTES: framed([many])}))


def many_signers(site: Site) -> bytes:
    envelope = json.loads(seal(KEYS_TYPE, canonical.encode(site.register), site.reg).encode())
    envelope["signatures"] *= 2000
    return site.pack(site.files() | {"keys.json": json.dumps(envelope).encode()})


def deep_manifest(site: Site) -> bytes:
    payload = b'{"v":' + b"[" * 5000 + b"]" * 5000 + b"}"
    return zipped({"manifest.json": seal(MANIFEST_TYPE, payload, site.col).encode()} | site.files())


HOSTILE: dict[str, Callable[[Site], bytes]] = {
    "zip bomb": lambda s: zipped({"manifest.json": bytes(1 << 25)}, method=zipfile.ZIP_DEFLATED),
    "path up": lambda s: zipped(s.files() | {"../../etc/passwd": b"x"}),
    "absolute path": lambda s: zipped(s.files() | {"/etc/passwd": b"x"}),
    "many entries": lambda s: zipped({f"f{i}": b"" for i in range(5000)}),
    "signatures of a checkpoint": many_signatures,
    "signatures of the register": many_signers,
    "deep record": hostile_record(b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    "deep manifest": deep_manifest,
    "huge integer": hostile_record(b'{"a":' + b"9" * 60_000 + b"}"),
    "large integer": hostile_record(b'{"a":9007199254740992}'),
    "long line": hostile_record(b'{"a":"' + b"x" * 2_000_000 + b'"}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_attack_39_hostile_bundles_are_not_worked_on(site: Site, tmp_path: Path, name: str) -> None:
    began = time.perf_counter()
    report = judged(tmp_path, site, data=HOSTILE[name](site))
    assert (report.exit, codes(report)) == (3, {"LIMIT"}), [error.line() for error in report.errors]
    assert time.perf_counter() - began < 20


# the machine it runs on ----------------------------------------------------------------------------------------------

ELSEWHEN = """
import datetime, random, socket, sys, time
def refuse(*_, **__):
    raise OSError("no network")
socket.socket = socket.create_connection = socket.getaddrinfo = refuse
now = float(sys.argv.pop(1))
time.time = lambda: now
time.time_ns = lambda: int(now * 1e9)
class Elsewhen(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(now, tz)
    @classmethod
    def utcnow(cls):
        return cls.utcfromtimestamp(now)
datetime.datetime = Elsewhen
from verifier.cli import main
sys.exit(main())
"""


def test_attack_40_a_wrong_clock_and_no_network_change_nothing(site: Site, tmp_path: Path, repository: Path) -> None:
    gap(site, "mp:M1", range(3, 5))
    judged(tmp_path, site)
    words = [str(tmp_path / "b.zip"), "--trust", str(tmp_path / "trust.json"), "--period", f"{site.first}/{site.last}"]
    said = []
    for now, zone in (("0", "UTC"), ("1790000000", "Asia/Almaty"), ("4102444800", "America/St_Johns")):
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHEN, now, *words, "--json", "-"],
            capture_output=True,
            cwd=repository,
            env={"TZ": zone, "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            check=False,
            timeout=60,
        )
        assert done.stderr == b""
        said.append((done.returncode, hashlib.sha256(done.stdout).hexdigest()))
    assert set(said) == {(1, said[0][1])}
