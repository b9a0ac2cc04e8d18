"""What the regulator hands over on paper (trust file) and what the registrar signed (register)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from verifier.canonical import read_canonical, read_json
from verifier.errors import CannotVerify, RegisterError, TrustError, UnknownSigner
from verifier.keys import Key, P256Key, by_kid, load_checkpoint_key, load_key, read_envelope
from verifier.notes import Policy, read_policy

KEYS_TYPE = "application/vnd.tizgin.keys.v1+json"
MAX_TRUST = 65_536
MAX_REGISTER = 4_194_304
SLOTS = frozenset({10, 60, 300, 900, 1800, 3600})


@dataclass(frozen=True, slots=True)
class Trust:
    """Keys believed without proof: the registrar's and the collector's."""

    registrar: Mapping[str, Key]
    collector: Mapping[str, Key]


def read_trust(path: Path) -> Trust:
    """The trust file: ``{"v":1,"registrar":[base64 …],"collector":[base64 …]}``.

    Raises:
        TrustError: missing, not such a file, or a key that must not be used.
    """
    try:
        with path.open("rb") as file:
            doc = read_json(file.read(MAX_TRUST + 1), max_bytes=MAX_TRUST)
    except OSError as error:
        raise TrustError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise TrustError(f"{path}: {error}") from None
    if not isinstance(doc, dict) or doc.get("v") != 1 or set(doc) != {"v", "registrar", "collector"}:
        raise TrustError(f"{path}: expected exactly v (1), registrar and collector")
    return Trust(_trusted(doc, "registrar", path), _trusted(doc, "collector", path))


def _trusted(doc: dict[str, Any], role: str, path: Path) -> Mapping[str, Key]:
    texts = doc[role]
    if not isinstance(texts, list) or not 1 <= len(texts) <= 16:
        raise TrustError(f"{path}: {role} needs 1 to 16 keys")
    keys: list[Key] = []
    for number, text in enumerate(texts):
        try:
            keys.append(load_key(text))
        except ValueError as error:
            raise TrustError(f"{path}: {role} key {number + 1}: {error}") from None
    return by_kid(keys)


@dataclass(frozen=True, slots=True)
class Point:
    """A metering point in the register."""

    serial: str | None
    ct: Fraction
    vt: Fraction


@dataclass(frozen=True, slots=True)
class Signer:
    """A person's key that may vouch for readings of this site (right ``inspect``), and when (ms)."""

    person: str
    name: str
    organisation: str
    role: str
    key: Key
    valid_from: int
    valid_to: int


@dataclass(frozen=True, slots=True)
class LogKey:
    """A key and the log indexes for which it is valid, both included."""

    key: Key | P256Key
    """A record key is never of P-256."""
    first: int
    last: int | None

    def holds(self, index: int) -> bool:
        """True where the key is valid at this place in the log."""
        return self.first <= index and (self.last is None or index <= self.last)


@dataclass(frozen=True, slots=True)
class Register:
    """What the register says about one site."""

    version: int
    site: str
    slot_s: int
    simulation: bool
    epochs: Mapping[str, tuple[LogKey, ...]]
    """Record keys of each epoch in the order in which they took over."""
    logs: Mapping[str, tuple[LogKey, ...]]
    """Keys that sign checkpoints, likewise."""
    policy: Policy | None
    """Who has to have cosigned a checkpoint; ``None`` where the register asks for no witness."""
    ends: Mapping[str, int | None]
    """Last log index of a closed epoch."""
    points: Mapping[str, Point]
    issuers: Mapping[str, Key] = field(default_factory=dict)
    revoked: Mapping[str, int] = field(default_factory=dict)
    """Key identifier → from when on nothing it signed is believed, ms."""
    contracted_w: int | None = None
    inspectors: Mapping[str, Signer] = field(default_factory=dict)
    """By key identifier."""
    technological_s: int = 0
    """Time that a stop leaves to the site."""
    emergency_w: int | None = None


def read_register(data: bytes, trust: Trust, site: str) -> Register:
    """Verify the register's envelope and take out one site.

    Raises:
        UnknownSigner: no key of the trust file signed.
        RegisterError: a wrong signature, or fields that cannot be.
        CannotVerify: the site is not in it.
    """
    try:
        envelope = read_envelope(data, KEYS_TYPE, max_bytes=MAX_REGISTER)
        if not envelope.good_signers(trust.registrar):
            seen = ", ".join(kid for kid, _ in envelope.signatures)
            raise UnknownSigner(f"the register is signed by {seen}, the trust file names {', '.join(trust.registrar)}")
        doc = read_canonical(envelope.payload, max_bytes=MAX_REGISTER)
        entry = next((s for s in doc["sites"] if s["id"] == site), None)
        if entry is None:
            raise CannotVerify(f"site {site} is not in the register (version {doc['version']})")
        return _site(doc, entry)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegisterError(f"register: {type(error).__name__}: {error}") from None


def _site(doc: dict[str, Any], entry: dict[str, Any]) -> Register:
    slot_s = entry["slot_s"]
    if slot_s not in SLOTS or (slot_s == 10 and entry.get("simulation") is not True):
        raise ValueError(f"slot_s {slot_s!r} is not allowed for this site")
    epochs: dict[str, list[LogKey]] = {}
    logs: dict[str, list[LogKey]] = {}
    ends: dict[str, int | None] = {}
    for item in sorted(entry.get("epochs", []), key=lambda e: int(e.get("from_index", 0))):
        first, last = int(item.get("from_index", 0)), item.get("to_index")
        if last is not None and type(last) is not int:
            raise ValueError(f"to_index {last!r}")
        epochs.setdefault(str(item["epoch"]), []).append(LogKey(load_key(item["k_rec"]), first, last))
        logs.setdefault(str(item["epoch"]), []).append(LogKey(load_checkpoint_key(item["k_log"]), first, last))
        ends[str(item["epoch"])] = item.get("to_index")
    points = {
        str(item["id"]): Point(
            item.get("serial"),
            Fraction(item.get("ct_num", 1), item.get("ct_den", 1)),
            Fraction(item.get("vt_num", 1), item.get("vt_den", 1)),
        )
        for item in entry.get("points", [])
    }
    return Register(
        version=int(doc["version"]),
        site=str(entry["id"]),
        slot_s=slot_s,
        simulation=entry.get("simulation") is True,
        epochs={epoch: tuple(keys) for epoch, keys in epochs.items()},
        logs={epoch: tuple(keys) for epoch, keys in logs.items()},
        policy=None if doc.get("policy") is None else read_policy(doc["policy"]),
        ends=ends,
        points=points,
        issuers=by_kid([load_key(item["key"]) for item in doc.get("issuers", [])]),
        revoked={str(item["kid"]): int(item["at"]) for item in doc.get("revoked", [])},
        contracted_w=entry.get("contracted_w"),
        inspectors=_inspectors(doc, entry),
        technological_s=60 * int(entry.get("technological_min", 0)),
        emergency_w=entry.get("emergency_w"),
    )


def _inspectors(doc: dict[str, Any], entry: dict[str, Any]) -> dict[str, Signer]:
    """Keys with the right ``inspect`` at this site or in its zone."""
    persons = {person["id"]: person for person in doc.get("persons", [])}
    found: dict[str, Signer] = {}
    for item in doc.get("issuers", []):
        person = persons.get(item.get("person"))
        here = entry["id"] in item.get("sites", []) or entry.get("zone") in item.get("zones", [])
        if person is None or not here or "inspect" not in item.get("rights", []):
            continue
        key = load_key(item["key"])
        name, organisation, role = (str(person[part]) for part in ("name", "organisation", "role"))
        valid = int(item["valid_from"]), int(item["valid_to"])
        found[key.kid] = Signer(str(person["id"]), name, organisation, role, key, *valid)
    return found
