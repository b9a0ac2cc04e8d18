"""What the registrar signs: persons, issuers and their rights, sites with their keys and reservations.

Carried by the ``keys`` topic (retained, signed by K_reg; only rising versions are taken). The site's own file says
nothing about who may order it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wire import canonical
from wire.checkpoints import log_key
from wire.dsse import KEYS_TYPE, Envelope, open_envelope, seal
from wire.errors import BadKey, BadSignature, NotCanonical, WireError
from wire.keys import SigningKey, VerifyKey
from wire.logkeys import read_log_key
from wire.names import VERDICTS, origin
from wire.notes import NoteKey
from wire.orders import Millis, Ref, Version1, Watt
from wire.policy import parse_policy

MAX_KEYS_BYTES = 262_144
"""A register travels in one MQTT packet; a larger country is divided by zones."""

Kid = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
KeyText = Annotated[str, Field(min_length=44, max_length=44)]
LogKeyText = Annotated[str, Field(min_length=44, max_length=124)]
"""Ed25519, or P-256: :mod:`wire.logkeys`."""
Right = Literal[
    "limit",
    "reduce",
    "stop",
    "stage",
    "open_feeders",
    "schedule",
    "release",
    "extend",
    "cancel",
    "emergency_trip",
    "mode",
    "commission",
    "declare",
    "mandate",
    "inspect",
]


class _Doc(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Person(_Doc):
    """A human being. Two persons are two of these, not two keys."""

    id: Ref
    name: Annotated[str, Field(max_length=200)]
    organisation: Annotated[str, Field(max_length=200)]
    role: Literal["system_operator", "grid_company", "site", "regulator", "gateway"]
    """``gateway`` is a program of the grid operator, no human being: it orders only within a mandate."""


class Issuer(_Doc):
    """One key of one person, and what it may order where."""

    kid: Kid
    key: KeyText
    person: Ref
    rights: tuple[Right, ...]
    sites: tuple[Ref, ...] = ()
    zones: tuple[Ref, ...] = ()
    solo_w: Watt = 0
    """Most that this key alone may shed per 10 minutes outside an emergency declaration."""
    valid_from: Millis
    valid_to: Millis


class Epoch(_Doc):
    """One life of a site's ledger and the keys that sign in it; validity is counted in log indexes."""

    epoch: Ref
    k_rec: KeyText
    k_log: LogKeyText
    from_index: Annotated[int, Field(ge=0)] = 0
    to_index: Annotated[int, Field(ge=0)] | None = None


class RegisteredPoint(_Doc):
    """A metering point as the register knows it."""

    id: Ref
    role: Literal["commercial", "control", "technical", "check"]
    boundary: bool = False
    serial: Annotated[str, Field(max_length=64)] | None = None
    ct_num: Annotated[int, Field(ge=1)] = 1
    ct_den: Annotated[int, Field(ge=1)] = 1
    vt_num: Annotated[int, Field(ge=1)] = 1
    vt_den: Annotated[int, Field(ge=1)] = 1


class Stage(_Doc):
    """What a stage that is ordered by its number means at a site: a limit of what it draws."""

    stage: Annotated[int, Field(ge=1, le=32)]
    limit_w: Watt


class RegisteredSite(_Doc):
    """A site in the asset register."""

    id: Ref
    zone: Ref
    contracted_w: Watt
    emergency_w: Watt
    technological_w: Watt = 0
    technological_min: Annotated[int, Field(ge=0, le=1440)] = 0
    slot_s: Literal[10, 60, 300, 900, 1800, 3600]
    simulation: bool = False
    operational_control: Annotated[str, Field(max_length=200)] | None = None
    """Organisation that commands the site's switches (оперативное управление). Without it any issuer with the right
    may."""
    operational_jurisdiction: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=16)] = ()
    """Organisations that may limit its load besides (оперативное ведение)."""
    stages: Annotated[tuple[Stage, ...], Field(max_length=32)] = ()
    epochs: tuple[Epoch, ...] = ()
    points: tuple[RegisteredPoint, ...] = ()


class Zone(_Doc):
    """How fast the load of a zone may change outside an emergency declaration. Sums over all sites of the zone."""

    id: Ref
    max_step_w: Watt
    max_ramp_w_per_min: Watt
    """Downwards."""
    max_return_w_per_min: Watt | None = None


class Revocation(_Doc):
    """A key that is no longer believed."""

    kid: Kid
    at: Millis
    reason: Annotated[str, Field(max_length=200)]


class Collector(_Doc):
    """Whose logs of verdicts witnesses cosign. It can sign no order."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    key: KeyText
    """K_col."""


class KeysDocument(_Doc):
    """The whole register."""

    v: Version1
    version: Annotated[int, Field(ge=1, le=canonical.MAX_INT)]
    issued_at: Millis
    persons: tuple[Person, ...]
    issuers: tuple[Issuer, ...]
    sites: tuple[RegisteredSite, ...]
    revoked: tuple[Revocation, ...] = ()
    policy: Annotated[str, Field(max_length=32_768)] | None = None
    """Which witnesses have to have cosigned a checkpoint, as :mod:`wire.policy` reads it; none is asked for without."""
    zones: tuple[Zone, ...] = ()
    """Bounds of zones. A site's zone may be missing here: then no plan of a whole zone or country is possible in it."""
    collectors: Annotated[tuple[Collector, ...], Field(max_length=16)] = ()
    """Centrals whose verdicts witnesses cosign; none without."""

    @model_validator(mode="after")
    def _consistent(self) -> KeysDocument:
        persons = {p.id for p in self.persons}
        kids = [i.kid for i in self.issuers]
        for issuer in self.issuers:
            if issuer.person not in persons:
                raise ValueError(f"issuer {issuer.kid} names an unknown person {issuer.person!r}")
            try:
                key = VerifyKey.from_text(issuer.key)
            except BadKey as error:
                raise ValueError(f"issuer {issuer.kid}: {error}") from None
            if key.kid != issuer.kid:
                raise ValueError(f"issuer {issuer.kid}: the key's identifier is {key.kid}")
            self._check_gateway(issuer)
        for name, ids in (
            ("person", [p.id for p in self.persons]),
            ("site", [s.id for s in self.sites]),
            ("issuer", kids),
            ("zone", [z.id for z in self.zones]),
        ):
            if len(set(ids)) != len(ids):
                raise ValueError(f"a {name} is listed twice")
        for site in self.sites:
            for entry in site.epochs:
                _check_epoch_keys(site.id, entry)
        _check_collectors(self)
        if self.policy is not None:
            parse_policy(self.policy)
        return self

    def _check_gateway(self, issuer: Issuer) -> None:
        person = self.person(issuer.person)
        if person is not None and person.role == "gateway" and not {"limit", "reduce"}.issuperset(issuer.rights):
            raise ValueError(f"issuer {issuer.kid} is a gateway: it may only have the rights limit and reduce")

    def encode(self) -> bytes:
        """Canonical bytes. Without zones or collectors there is no such field, so that an older side can read it."""
        left_out = {name for name in ("zones", "collectors") if not getattr(self, name)}
        return canonical.encode(self.model_dump(mode="json", exclude_none=True, exclude=left_out))

    def zone(self, zone_id: str) -> Zone | None:
        """Bounds of that zone, where the register has them."""
        return next((z for z in self.zones if z.id == zone_id), None)

    def site(self, site_id: str) -> RegisteredSite | None:
        """The register's entry of a site."""
        return next((s for s in self.sites if s.id == site_id), None)

    def person(self, person_id: str) -> Person | None:
        """The person of that id."""
        return next((p for p in self.persons if p.id == person_id), None)

    def issuer(self, kid: str) -> Issuer | None:
        """The issuer of that key."""
        return next((i for i in self.issuers if i.kid == kid), None)

    def verify_keys(self) -> dict[str, VerifyKey]:
        """Keys of all issuers by identifier, revoked ones included (revocation is judged by time)."""
        return {i.kid: VerifyKey.from_text(i.key) for i in self.issuers}

    def revoked_at(self, kid: str) -> int | None:
        """When the key was revoked, ms; ``None`` if it is not."""
        return min((r.at for r in self.revoked if r.kid == kid), default=None)

    def log_keys(self, site_id: str, epoch: str) -> list[NoteKey]:
        """Keys that may sign checkpoints of one life of a site's log, or of the log of verdicts on it (``vee``)."""
        site = self.site(site_id)
        name = origin(site_id, epoch)
        if epoch == VERDICTS:
            keys = [VerifyKey.from_text(c.key) for c in self.collectors] if site else []
            return [log_key(name, key.raw) for key in keys if self.revoked_at(key.kid) is None]
        return [log_key(name, read_log_key(e.k_log).raw) for e in (site.epochs if site else ()) if e.epoch == epoch]

    def record_keys(self, site_id: str) -> dict[str, dict[str, VerifyKey]]:
        """Record keys of a site: epoch → kid → key."""
        site = self.site(site_id)
        found: dict[str, dict[str, VerifyKey]] = {}
        for entry in site.epochs if site else ():
            key = VerifyKey.from_text(entry.k_rec)
            found.setdefault(entry.epoch, {})[key.kid] = key
        return found


def _check_epoch_keys(site: str, entry: Epoch) -> None:
    for name, text, read in (("k_rec", entry.k_rec, VerifyKey.from_text), ("k_log", entry.k_log, read_log_key)):
        try:
            read(text)
        except BadKey as error:
            raise ValueError(f"site {site} epoch {entry.epoch} {name}: {error}") from None
    if entry.k_rec == entry.k_log:
        raise ValueError(f"site {site} epoch {entry.epoch}: one key signs records and checkpoints")


def _check_collectors(document: KeysDocument) -> None:
    taken = {issuer.key for issuer in document.issuers}
    taken |= {text for site in document.sites for e in site.epochs for text in (e.k_rec, e.k_log)}
    for collector in document.collectors:
        try:
            VerifyKey.from_text(collector.key)
        except BadKey as error:
            raise ValueError(f"collector {collector.name}: {error}") from None
        if collector.key in taken:
            raise ValueError(f"collector {collector.name}: its key serves another purpose or is listed twice")
        taken.add(collector.key)


def sign_keys(document: KeysDocument, key: SigningKey) -> bytes:
    """Envelope bytes of a register signed by the registrar."""
    return seal(KEYS_TYPE, document.encode(), key).encode()


def open_keys(raw: bytes, registrar: Sequence[VerifyKey] | Mapping[str, VerifyKey]) -> tuple[KeysDocument, Envelope]:
    """Parse and verify a register.

    Raises:
        WireError: not signed by the registrar, or not a register; the message says which.
    """
    keys = registrar if isinstance(registrar, Mapping) else {k.kid: k for k in registrar}
    try:
        envelope = open_envelope(raw, expected_type=KEYS_TYPE, max_bytes=MAX_KEYS_BYTES)
        envelope.verify(keys)
        canonical.decode(envelope.payload, max_bytes=MAX_KEYS_BYTES)
        return KeysDocument.model_validate_json(envelope.payload), envelope
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WireError(f"register field {where}: {first['msg']}") from None
    except (NotCanonical, BadSignature) as error:
        raise WireError(f"register: {error}") from None
