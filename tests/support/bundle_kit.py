"""Evidence bundles made by hand, as a site, its log, its witnesses and a collector make them; for verifiers' tests."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p256 import P256Signer

from verifier.metering import Period
from verifier.report import Report
from verifier.verify import verify
from wire import canonical
from wire.checkpoints import Checkpoint, anchor_of, cosign
from wire.dsse import KEYS_TYPE, MANIFEST_TYPE, ORDER_TYPE, RECORD_TYPE, pae, seal
from wire.energy import interval_wh
from wire.keys import SigningKey, b64
from wire.merkle import Frontier
from wire.notes import COSIGNATURE, Note, NoteKey
from wire.records import RecordLine

SITE, EPOCH, SLOT = "ekb-01", "e1-0a1b2c3d", 900
LATER_EPOCH = "e2-4e5f6a7b"
START = 1_790_000_100 // SLOT * SLOT
SLOTS = 12
IMPORT = "energy_import_wh"
MAP = {"fc": 4, "addr": 100, "words": 2, "order": "little", "enc": "f32", "lsb": {"num": 1000, "den": 1}}
EXPORT_MAP = {"fc": 4, "addr": 102, "words": 2, "order": "big", "enc": "u32", "lsb": {"num": 1, "den": 3}}
Doc = dict[str, Any]


def f32(value: float) -> int:
    return int.from_bytes(struct.pack(">f", value), "big")


def frames(imported: int, exported: int) -> list[list[str]]:
    words = [imported & 0xFFFF, imported >> 16, exported >> 16, exported & 0xFFFF]
    data = b"".join(word.to_bytes(2, "big") for word in words)
    return [["010400640004", (b"\x01\x04\x08" + data).hex()]]


@dataclass
class Signed:
    """Every record signed, and the log over them."""

    lines: dict[str, list[RecordLine]]
    places: dict[str, list[int]]
    leaves: list[bytes] = field(default_factory=list)
    notes: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    anchor: dict[str, Any] | None = None
    next_s: int = START + 30


@dataclass
class Site:
    """A site's evidence as plain documents, to be changed before :meth:`write` signs and packs it."""

    rec: SigningKey = field(default_factory=SigningKey.generate)
    log: SigningKey | P256Signer = field(default_factory=SigningKey.generate)
    reg: SigningKey = field(default_factory=SigningKey.generate)
    col: SigningKey = field(default_factory=SigningKey.generate)
    dispatcher: SigningKey = field(default_factory=SigningKey.generate)
    witnesses: dict[str, SigningKey] = field(default_factory=dict)
    """Name → key; with any, the site has a log that they cosign after each slot."""
    streams: dict[str, list[Doc]] = field(default_factory=dict)
    register: Doc = field(default_factory=dict)
    epoch: str = EPOCH
    anchored: bool = True
    """False: records name no checkpoint, as somebody writes them who has none."""
    rotated: tuple[int, SigningKey] | None = None
    """After this time (ms) records are signed by this key."""
    later_log: tuple[int, SigningKey | P256Signer] | None = None
    """Checkpoints that hold this place of the log are signed by this key."""
    beside: Callable[[Site], dict[str, bytes]] | None = None
    """Makes files that stand beside those of the site, such as a log of verdicts."""
    first: int = START
    last: int = START + SLOTS * SLOT

    def add(self, stream: str, ty: str, at_s: float, fields: Doc) -> None:
        common = {
            "v": 1,
            "log": f"tizgin/{SITE}/{self.epoch}",
            "st": stream,
            "a": None,
            "ty": ty,
            "at": int(at_s * 1000),
        }
        more = {
            "mono": int((at_s - START + 100) * 1e6),
            "boot": "b0",
            "clk": {"s": "S", "off_us": 5, "src": "ntp"},
            "fw": "1.0",
        }
        self.streams.setdefault(stream, []).append(common | more | fields)

    def lines(self, stream: str, key: SigningKey | None = None) -> list[bytes]:
        return [line.encode() for line in self.signed(key).lines[stream]]

    def signed(self, key: SigningKey | None = None) -> Signed:
        """Sign every record in the order of its time; after each slot the log is cosigned and anchors what follows."""
        done = Signed({stream: [] for stream in self.streams}, {stream: [] for stream in self.streams})
        binds: dict[str, str] = {}
        order = sorted(
            ((doc["at"], number, stream, n) for number, stream in enumerate(self.streams) for n, doc in
             enumerate(self.streams[stream])),
            key=lambda item: (max(d["at"] for d in self.streams[item[2]][: item[3] + 1]), item[1], item[3]),
        )  # fmt: skip
        for _, _, stream, n in order:
            doc = self.streams[stream][n]
            if self.witnesses:
                self._checkpoints(done, doc["at"])
            before = done.lines[stream]
            body = {"n": n, "p": before[-1].hash.hex() if before else None} | doc
            if self.witnesses and self.anchored and "a" in body and body["a"] is None:
                body["a"] = done.anchor
            if doc["ty"] in {"interval", "spot"} and doc.get("cfg") == "BIND":
                body["cfg"] = binds.get(stream)
            newer = self.rotated is not None and doc["at"] > self.rotated[0]
            own = self.rotated[1] if newer and self.rotated else self.rec
            line = RecordLine.sign(body, key or own)
            if doc["ty"] == "bind":
                binds[stream] = line.hash.hex()
            before.append(line)
            done.places[stream].append(len(done.leaves))
            done.leaves.append(line.hash)
        if self.witnesses:
            self._checkpoints(done, self.last * 1000 + SLOT * 1000)
        return done

    def _checkpoints(self, done: Signed, until_ms: int) -> None:
        while done.next_s * 1000 <= until_ms:
            if done.leaves and (not done.notes or done.sizes[-1] < len(done.leaves)):
                note = self.checkpoint(done.leaves, done.next_s)
                done.notes.append(note)
                done.sizes.append(len(done.leaves))
                done.anchor = anchor_of(note, len(done.leaves))
            done.next_s += SLOT

    def checkpoint(self, leaves: list[bytes], at_s: int, *names: str) -> bytes:
        """A checkpoint over these leaves, cosigned by the named witnesses (all by default)."""
        tree = Frontier()
        tree.extend(leaves)
        key = self.later_log[1] if self.later_log and tree.size > self.later_log[0] else self.log
        bare = Checkpoint(f"tizgin/{SITE}/{self.epoch}", tree.size, tree.root())
        note = bare.signed(key.public, key.sign(bare.text.encode()))
        lines = [cosign(note.text, w, self.witnesses[w], at_s) for w in names or sorted(self.witnesses)]
        return Note(note.text, (*note.signatures, *lines)).encode()

    def policy(self) -> str:
        """The first witness by name and one more."""
        keys = [f"witness {w} {NoteKey(w, COSIGNATURE, k.public.raw).text}" for w, k in self.witnesses.items()]
        first, *others = self.witnesses
        return "\n".join([*keys, f"group more any {' '.join(others)}", f"group q all {first} more", "quorum q", ""])

    def totals(self, stream: str) -> Doc:
        inside = [d for d in self.streams[stream] if self.first <= d.get("t0", -1) and d.get("t1", 1e12) <= self.last]
        read = [d for d in inside if d["ty"] == "interval"]
        exported = [d["exp_wh"] for d in read if d["exp_wh"] is not None]
        return {
            "id": stream[3:],
            "wh": sum(d["wh"] for d in read),
            "exp_wh": sum(exported) if exported else None,
            "intervals": len(read),
            "gaps": sum(d["ty"] == "gap" for d in inside),
        }

    def files(self) -> dict[str, bytes]:
        points = sorted(s for s in self.streams if s.startswith("mp:"))
        span = {"from": self.first, "to": self.last}
        report = {"v": 1, "site": SITE, "period": span, "slot_s": SLOT}
        report["points"] = {f"p{i:04d}": self.totals(s) for i, s in enumerate(points)}
        signed = self.signed()
        records = {
            f"records/{self.epoch}/{stream.replace(':', '_')}.tzr": b"".join(
                x.encode() + b"\n" for x in signed.lines[stream]
            )
            for stream in self.streams
        }
        if self.witnesses:
            records[f"log/{self.epoch}.leaves"] = b"".join(signed.leaves)
            records[f"log/{self.epoch}.notes"] = b"".join(b"%d\n" % len(note) + note for note in signed.notes)
            for stream, places in signed.places.items():
                name = f"records/{self.epoch}/{stream.replace(':', '_')}.idx"
                records[name] = b"".join(struct.pack(">Q", place) for place in places)
        records |= self.beside(self) if self.beside is not None else {}
        keys = seal(KEYS_TYPE, canonical.encode(self.register), self.reg).encode()
        return {"keys.json": keys, "report.json": canonical.encode(report)} | dict(sorted(records.items()))

    def pack(self, files: dict[str, bytes] | None = None) -> bytes:
        content = self.files() if files is None else files
        manifest = {
            "v": 1,
            "site": SITE,
            "period": {"from": self.first, "to": self.last},
            "made_at": self.last * 1000,
            "tool": "tizgin/test",
            "files": {
                f"f{i:04d}": {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                for i, (name, data) in enumerate(content.items())
            },
        }
        signed = seal(MANIFEST_TYPE, canonical.encode(manifest), self.col).encode()
        return zipped({"manifest.json": signed} | content)

    def trust(self) -> bytes:
        return json.dumps({"v": 1, "registrar": [self.reg.public.text], "collector": [self.col.public.text]}).encode()


def zipped(files: dict[str, bytes], **changes: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, changes.get("date", (1980, 1, 1, 0, 0, 0)))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            info.compress_type = changes.get("method", zipfile.ZIP_STORED)
            info.comment = changes.get("comment", b"")
            archive.writestr(info, data)
        archive.comment = changes.get("end", b"")
    return buffer.getvalue()


def interval(slot: int, registers: list[tuple[int, int]], *, opening: bool = False) -> Doc:
    (i0, x0), (i1, x1) = registers[slot], registers[slot + 1]
    t0 = START + slot * SLOT
    doc: Doc = {
        "t0": t0,
        "t1": t0 + SLOT,
        "rt0": t0 * 1000 + 200 + slot,
        "rt1": (t0 + SLOT) * 1000 + 201 + slot,
        "reg": {IMPORT: [i0, i1], "energy_export_wh": [x0, x1]},
        "cfg": "BIND",
        "wh": interval_wh(i0, i1, MAP),
        "exp_wh": interval_wh(x0, x1, EXPORT_MAP),
        "sn": "A1",
        "mto": 12,
        "q": [],
        "raw": frames(i1, x1),
    }
    if opening:
        doc["raw0"] = frames(i0, x0)
    return doc


def order_envelope(site: Site, order_id: str) -> tuple[bytes, str]:
    payload = canonical.encode({"v": 1, "id": order_id, "site": SITE, "epoch": EPOCH, "action": "stop"})
    return seal(ORDER_TYPE, payload, site.dispatcher).encode(), hashlib.sha256(payload).hexdigest()


ORDER_ID = "01912345-0000-7000-8000-000000000001"


def good_site(
    *,
    witnessed: bool = False,
    before: Site | None = None,
    slots: range = range(SLOTS),
    make_key: Callable[[], SigningKey] = SigningKey.generate,
    log: SigningKey | P256Signer | None = None,
) -> Site:
    """Two metering points, twelve slots each, one order: intact and complete.

    With ``before`` a later epoch of the same site, which was installed again; ``slots`` are those it has.
    """
    site = Site(*(make_key() for _ in range(5)))
    site.log = log or site.log
    if before is not None:
        site = Site(before.rec, before.log, before.reg, before.col, before.dispatcher, before.witnesses)
        site.epoch, site.register = LATER_EPOCH, before.register
    elif witnessed:
        site.witnesses = {name: make_key() for name in ("so", "col", "reg")}
    site.register = site.register or {
        "v": 1,
        "version": 3,
        "issued_at": START * 1000,
        "persons": [],
        "issuers": [{"kid": site.dispatcher.kid, "key": site.dispatcher.public.text, "person": "d"}],
        "sites": [
            {
                "id": SITE,
                "zone": "north",
                "slot_s": SLOT,
                "simulation": False,
                "epochs": [
                    {"epoch": EPOCH, "k_rec": site.rec.public.text, "k_log": site.log.public.text, "from_index": 0}
                ],
                "points": [
                    {"id": "M1", "role": "commercial", "ct_num": 600, "ct_den": 5},
                    {"id": "M2", "role": "technical", "ct_num": 600, "ct_den": 5, "serial": "A1"},
                ],
            }
        ],
        "revoked": [],
    }
    if witnessed:
        site.register["policy"] = site.policy()
    begun = START if before is None else START + slots.start * SLOT + 2
    if before is not None:
        first = site.register["sites"][0]["epochs"][0]
        site.register["sites"][0]["epochs"].append(first | {"epoch": LATER_EPOCH})
    genesis = {"site": SITE, "slot_s": SLOT, "k_rec": site.rec.public.text, "k_log": site.log.public.text, "prev": None}
    genesis |= {"simulation": False, "contracted_w": 100_000_000, "emergency_w": 1_500_000}
    site.add("site", "genesis", begun - 60, genesis)
    site.add("site", "start", begun - 59, {"config_sha256": "00", "mode": "armed", "keys_version": 3})
    raw, digest = order_envelope(site, ORDER_ID)
    if before is None:
        _order(site, raw, digest)
    for point, step in (("mp:M1", 9.75), ("mp:M2", 3.3)):
        registers = [(f32(1000.1 + step * i), 70 + 7 * i) for i in range(SLOTS + 1)]
        bind = {"device": "d", "profile": "p", "sn": "A1", "role": "commercial", "owner": "grid", "boundary": True}
        bind |= {"node": "n", "inverted": False, "ct": {"num": 120, "den": 1}, "vt": {"num": 1, "den": 1}}
        bind |= {"ratio_applied_in": "agent", "seals": [], "pts": {IMPORT: MAP, "energy_export_wh": EXPORT_MAP}}
        site.add(point, "bind", begun + 0.3, bind)
        for slot in slots:
            opening = slot == slots.start
            site.add(point, "interval", START + (slot + 1) * SLOT + 0.4, interval(slot, registers, opening=opening))
    return site


def _order(site: Site, raw: bytes, digest: str) -> None:
    site.add("cmd", "cmd_rx", START + 70, {"id": ORDER_ID, "digest": digest, "raw": b64(raw), "rx": 1})
    ack = {"id": ORDER_ID, "state": "validated", "code": None, "text": "", "order_mode": "live"}
    site.add("cmd", "cmd_ack", START + 70, ack | {"agent_mode": "armed", "kids": [site.dispatcher.kid], "seq": 1})
    site.add("cmd", "cmd_eff", START + 80, {"id": ORDER_ID, "state": "holding", "flags": [], "power_w": 1})


def codes(report: Report) -> set[str]:
    return {error.code for error in report.errors}


def doubts(report: Report) -> set[str]:
    """First words of what a reader should ask about."""
    return {doubt.split()[0] for doubt in report.doubts}


def judged(folder: Path, site: Site, files: dict[str, bytes] | None = None, **more: Any) -> Report:
    """Write the bundle (of these files, or ``data`` as it is) and verify it."""
    data, head = more.get("data"), more.get("head")
    (folder / "b.zip").write_bytes(site.pack(files) if data is None else data)
    (folder / "trust.json").write_bytes(more.get("trust") or site.trust())
    if head is not None:
        (folder / "head.note").write_bytes(head)
    return verify(
        folder / "b.zip",
        trust_path=folder / "trust.json",
        period=more.get("period") or Period(site.first, site.last),
        head_path=folder / "head.note" if head is not None else None,
        jobs=more.get("jobs", 1),
        independent=more.get("independent", ()),
    )


def ordered(files: dict[str, bytes]) -> dict[str, bytes]:
    """Files in the order that a bundle has."""
    head = {name: files[name] for name in ("keys.json", "report.json")}
    return head | {name: files[name] for name in sorted(files.keys() - head.keys())}


def framed(notes: list[bytes]) -> bytes:
    """Notes as a bundle has them."""
    return b"".join(b"%d\n" % len(note) + note for note in notes)


def joined(first: Site, second: Site) -> dict[str, bytes]:
    """Files of a bundle with two epochs of one site."""
    one, two = first.files(), second.files()
    report = json.loads(one["report.json"])
    for entry, later in zip(report["points"].values(), json.loads(two["report.json"])["points"].values(), strict=True):
        for name in ("wh", "exp_wh", "intervals", "gaps"):
            entry[name] += later[name]
    return ordered(one | two | {"report.json": canonical.encode(report)})


def signed_line(site: Site, payload: bytes) -> bytes:
    """A line of any payload, signed by the site's own key."""
    return b"TZR1|" + payload + f"|{site.rec.kid}|{b64(site.rec.sign(pae(RECORD_TYPE, payload)))}\n".encode()


def fresh(template: Site) -> Site:
    """A copy whose records and register may be changed."""
    again = copy.copy(template)
    again.streams, again.register = copy.deepcopy(template.streams), copy.deepcopy(template.register)
    return again


def gap(site: Site, stream: str, slots: range, why: str = "TIMEOUT", **more: Any) -> None:
    """Replace intervals by gaps; the interval after them bridges, as a site writes it."""
    docs = site.streams[stream]
    before, after = docs[slots.start], docs[slots.stop + 1]
    for i in slots:
        t0 = docs[i + 1]["t0"]
        kept = {k: v for k, v in docs[i + 1].items() if k in {"v", "log", "st", "a", "at", "mono", "boot", "clk", "fw"}}
        docs[i + 1] = kept | {"ty": "gap", "t0": t0, "t1": t0 + SLOT, "why": why, "tries": 3} | more
    closing = {p: pair[1] for p, pair in before["reg"].items()}
    opening = {p: pair[0] for p, pair in after["reg"].items()}
    after["bridge_reg"], after["bridge_rt"] = closing, before["rt1"]
    after["bridge_wh"] = interval_wh(closing[IMPORT], opening[IMPORT], MAP)
    after["raw0"] = frames(opening[IMPORT], opening["energy_export_wh"])
