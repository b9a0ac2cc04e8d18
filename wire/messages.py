"""Messages between agent and central. Claims, counters and requests; never a ground for action at a switch."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wire import canonical
from wire.dsse import CSR_TYPE, pae
from wire.errors import WireError
from wire.names import EPOCH, SITE
from wire.states import Flag, OrderState

MAX_MESSAGE = 262_144
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
SiteName = Annotated[str, Field(pattern=f"^{SITE.pattern}$")]
EpochName = Annotated[str, Field(pattern=f"^{EPOCH.pattern}$")]
Name = Annotated[str, Field(min_length=1, max_length=128)]


class Message(BaseModel):
    """Unknown fields are ignored, so that an older side can read a newer one."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def encode(self) -> bytes:
        """JSON bytes."""
        return self.model_dump_json(exclude_none=True).encode()


M = TypeVar("M", bound=Message)


def decode(model: type[M], raw: bytes, *, max_bytes: int = MAX_MESSAGE) -> M:
    """Parse a message.

    Raises:
        WireError: too large, not JSON, or a field is wrong.
    """
    if len(raw) > max_bytes:
        raise WireError(f"{model.__name__} of {len(raw)} bytes, at most {max_bytes}")
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise WireError(f"{model.__name__} {where}: {first['msg']}"[:300]) from None


class State(Message):
    """``state``: presence only. The will says ``online: false``."""

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    online: bool
    boot: Name
    agent_version: Name
    mode: Literal["monitor", "shadow", "armed"]
    simulation: bool = False
    at: Count


class StreamHead(Message):
    """How far one stream is: number of records and the last leaf hash (hex)."""

    count: Count
    last: str | None = None


class Heads(Message):
    """``heads``: on connect and each slot."""

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    boot: Name
    at: Count
    streams: dict[Name, StreamHead]
    log_size: Count = 0
    log_root: str | None = None
    config_sha256: str | None = None
    keys_version: Count | None = None
    inventory_sha256: str | None = None
    bulk_last: Count | None = None
    """Last batch number written in this boot; with it central sees a missing tail."""


class Range(Message):
    """Numbers ``first`` to ``last``, both included."""

    first: Count
    last: Count

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.first > self.last:
            raise ValueError(f"a range from {self.first} to {self.last} holds nothing")
        return self


class StreamCommit(Message):
    """Ranges of one stream that are on central's disk."""

    stream: Name
    boot: Name | None = None
    ranges: Annotated[tuple[Range, ...], Field(max_length=1000)]


class Commit(Message):
    """``commit``: central's word that rows are on disk."""

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    at: Count
    streams: Annotated[tuple[StreamCommit, ...], Field(max_length=1000)] = ()
    state_at: Count | None = None
    """Echo of ``State.at`` that this answers; a commit without rows is a sign of life."""


class Want(Message):
    """``want``: send these again."""

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    stream: Name
    """A stream of the ledger, ``bulk``, or ``log``: leaf hashes by their place in the log."""
    first: Count
    last: Count

    @model_validator(mode="after")
    def _in_order(self) -> Want:
        if self.first > self.last:
            raise ValueError(f"a range from {self.first} to {self.last} holds nothing")
        return self


class SizeProof(Message):
    """That the log only grew since ``old`` leaves; ``path`` in base64, none where the sizes are equal."""

    old: Count
    path: Annotated[tuple[Annotated[str, Field(max_length=44)], ...], Field(max_length=63)] = ()


class CheckpointMessage(Message):
    """``checkpoint``: a signed checkpoint, with what a witness and the collector need to judge it.

    ``note`` is the note's text with its signature lines. ``leaves`` are leaf hashes from index ``first`` on, one after
    another, in base64: with them central knows each record's place in the log, also of records that it does not hold.
    """

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    note: Annotated[str, Field(max_length=65_536)]
    submit: bool = False
    """Witnesses are asked to cosign; else the message only brings leaves."""
    proofs: Annotated[tuple[SizeProof, ...], Field(max_length=16)] = ()
    first: Count = 0
    leaves: Annotated[str, Field(max_length=180_000)] = ""


class Cosign(Message):
    """``cosign``: what a witness says to a log. The lines are signatures, everything else is a claim.

    ``size`` is the largest size this witness has cosigned; ``lines`` are cosignature lines over the checkpoint of
    ``of_size``. ``latest`` and ``previous`` are newest cosigned notes of this epoch and of the one before: with them an
    agent sees that its ledger was put back to an older day.
    """

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    witness: Name
    size: Count
    of_size: Count | None = None
    lines: Annotated[str, Field(max_length=16_384)] | None = None
    error: Literal["conflict", "bad_proof", "unknown_log", "bad_signature"] | None = None
    text: Annotated[str, Field(max_length=500)] | None = None
    latest: Annotated[str, Field(max_length=65_536)] | None = None
    previous: Annotated[str, Field(max_length=65_536)] | None = None


class CertRequest(Message):
    """``csr``: a site asks for a new TLS certificate before the one in use ends.

    ``csr`` is PKCS#10 in PEM with a new P-256 key, ``cert`` the certificate in use in PEM. Two signatures over the same
    bytes (:meth:`signed`), in base64: ``sig`` Ed25519 by the record key ``kid``, ``sig_tls`` ECDSA with SHA-256 (DER)
    by the key of ``cert``.
    """

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    at: Count
    csr: Annotated[str, Field(max_length=16_384)]
    cert: Annotated[str, Field(max_length=16_384)]
    kid: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    sig: Annotated[str, Field(max_length=88)]
    sig_tls: Annotated[str, Field(max_length=128)]

    def signed(self) -> bytes:
        """What both signatures are over: PAE of the canonical JSON of everything but them and ``kid``."""
        names = ("v", "site", "epoch", "at", "csr", "cert")
        return pae(CSR_TYPE, canonical.encode({name: getattr(self, name) for name in names}))


class CertGrant(Message):
    """``cert``: the new certificate (PEM, its issuers may follow), or why there is none.

    Nothing but the authority's signature within the certificate proves anything.
    """

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    cert: Annotated[str, Field(max_length=65_536)] | None = None
    error: Literal["no_register", "unknown_key", "bad_signature", "bad_certificate", "bad_request", "off"] | None = None
    text: Annotated[str, Field(max_length=500)] | None = None


class Curtailable(Message):
    """What an order could take off now and how low the site would come, W; null is unknown.

    ``sleep_w`` by sleeping machines alone, ``switch_w`` by opening every usable output alone, as live meters see it.
    ``floor_sleep_w`` is net power after all sleep, ``floor_switch_w`` after sleep and every usable output.
    """

    sleep_w: int | None = None
    switch_w: int | None = None
    floor_sleep_w: int | None = None
    floor_switch_w: int | None = None


class Live(Message):
    """``live``: kW now; never stored and forwarded. Integers in W; null is unknown."""

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    boot: Name
    at: Count
    net_w: int | None = None
    mining_w: int | None = None
    limit_w: int | None = None
    order: str | None = None
    points: dict[Name, int | None] = Field(default_factory=dict, max_length=2000)
    ages_ms: dict[Name, Count] = Field(default_factory=dict, max_length=2000)
    asics_total: Count | None = None
    asics_hashing: Count | None = None
    asics_sleeping: Count | None = None
    switches: dict[Name, str] = Field(default_factory=dict, max_length=2000)
    alarms: Annotated[tuple[Name, ...], Field(max_length=200)] = ()
    curtailable: Curtailable | None = None
    """``None`` from an agent that does not tell it."""
    outputs_w: dict[Name, int | None] = Field(default_factory=dict, max_length=2000)
    """Output → live power behind it by its own meter; null where no meter tells."""
    outputs_why: dict[Name, Annotated[str, Field(max_length=200)]] = Field(default_factory=dict, max_length=2000)
    """Output → why it does not count as curtailable now. Of one that is not named, ``outputs_w`` does."""
    unavailable: dict[Name, int | None] = Field(default_factory=dict, max_length=2000)
    """Switch or group of machines in declared maintenance → power behind it, W."""
    saon_w: dict[Name, int | None] = Field(default_factory=dict, max_length=32)
    """САОН stage → load behind its feeders, W."""


class Progress(Message):
    """``progress``: how an order goes. Unsigned and says so; the signed answers are record lines."""

    v: Literal[1] = 1
    signed: Literal[False] = False
    site: SiteName
    epoch: EpochName
    order: Name
    state: OrderState
    flags: tuple[Flag, ...] = ()
    at: Count
    power_w: int | None = None
    target_w: int | None = None
    steps_done: Count = 0
    steps_total: Count = 0
    text: Annotated[str, Field(max_length=500)] | None = None
    waiting_for: Annotated[tuple[Name, ...], Field(max_length=200)] = ()
    """Switches that a person has to close."""


class InventoryDevice(Message):
    """One device, claimed."""

    id: Name
    kind: Literal["meter", "relay", "pdu", "asic"]
    profile: Name
    model: str | None = None
    serial: str | None = None
    address: str | None = None


class Inventory(Message):
    """``inventory``: what the site says it has. ASICs are listed in groups."""

    v: Literal[1] = 1
    site: SiteName
    epoch: EpochName
    at: Count
    devices: Annotated[tuple[InventoryDevice, ...], Field(max_length=20_000)] = ()
    miner_groups: dict[Name, Count] = Field(default_factory=dict)
    metering_points: tuple[Name, ...] = ()
    measured_at: Name | None = None
    contracted_w: Count | None = None
    emergency_w: Count | None = None
    outputs: dict[Name, bool] = Field(default_factory=dict)
    """Output → armed."""


def to_json(value: Any) -> bytes:
    """Compact JSON of plain data."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
