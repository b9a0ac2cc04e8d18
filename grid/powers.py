"""Emergency declarations and mandates: made, shown in words, signed by one person after the other, and read.

A power travels as a file. The first person makes it; the second opens the file, reads it decoded and signs the same
bytes. Nobody adds a signature that the register would not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from grid.errors import GridError
from grid.files import read_bounded
from grid.texts import Texts
from grid.words import Rows, kilowatt, local_time, signer_text
from wire import canonical
from wire.dsse import DECLARATION_TYPE, MANDATE_TYPE, Envelope, open_envelope, seal
from wire.errors import WireError
from wire.keys import SigningKey, b64
from wire.orders import uuid7
from wire.powers import MAX_POWER_BYTES, Declaration, Mandate
from wire.registry import KeysDocument

Power = Declaration | Mandate
KINDS: Mapping[type[Power], tuple[str, str]] = {
    Declaration: (DECLARATION_TYPE, "declare"),
    Mandate: (MANDATE_TYPE, "mandate"),
}
"""Kind of a power → payload type and the right that its signers need."""
P = TypeVar("P", Declaration, Mandate)


def compose_power(model: type[P], fields: Mapping[str, Any], *, now_ms: int, minutes: int) -> P:
    """A declaration or mandate, valid from now.

    Raises:
        GridError: a field is missing or out of bounds.
    """
    name = model.__name__.lower()
    times = {"issued_at": now_ms, "valid_from": now_ms, "valid_to": now_ms + minutes * 60_000}
    try:
        return model.model_validate_json(canonical.encode({"v": 1, "id": uuid7(now_ms), **times, **fields}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "times"
        raise GridError(f"{name} field {where}: {first['msg']}; see 'tizgin order --help'") from None
    except WireError as error:
        raise GridError(f"{name}: {error}") from None


def describe_power(power: Power, t: Texts) -> Rows:
    """Label and value of everything that is signed, the number of the plan and of the gateway's key included."""
    rows: Rows = [(t("Zones"), ", ".join(power.zones))]
    if isinstance(power, Declaration):
        rows = [
            (t("Emergency declaration"), t("while it lives, one signature sheds")),
            *rows,
            (t("At most per site"), kilowatt(power.cap_w, t)),
            (t("Reason"), power.text),
        ]
    else:
        rows = [
            (t("Mandate"), t("a gateway orders by itself within these bounds")),
            *rows,
            (t("Actions"), ", ".join(power.actions)),
            (t("At most per site"), kilowatt(power.max_cut_w, t)),
            (t("Largest step"), kilowatt(power.max_step_w, t)),
            (t("Change per minute"), kilowatt(power.max_ramp_w_per_min, t)),
            (t("Total off the plan by at most"), kilowatt(power.band_w, t)),
            (t("Plan"), power.plan),
            (t("Gateway"), power.gateway),
        ]
    return [
        *rows,
        (t("Issued"), local_time(power.issued_at)),
        (t("Valid from"), local_time(power.valid_from)),
        (t("Valid until"), local_time(power.valid_to)),
        (t("Id"), power.id),
    ]


def sign_power_first(power: Power, key: SigningKey, register: KeysDocument) -> Envelope:
    """The power with its first signature.

    Raises:
        GridError: the register does not let this key sign such a power.
    """
    kind, right = KINDS[type(power)]
    _may_sign(power, key.kid, right, register)
    return seal(kind, power.encode(), key)


def countersign(power: Power, envelope: Envelope, key: SigningKey, register: KeysDocument, *, now_ms: int) -> Envelope:
    """A second person's signature over the same bytes.

    Raises:
        GridError: an earlier signature is not good, the person signed already, has no right, or it is over.
    """
    kind, right = KINDS[type(power)]
    try:
        kids = envelope.verify(register.verify_keys())
    except WireError as error:
        raise GridError(f"{kind}: {error}; do not sign it, ask for the file again") from None
    persons = {_may_sign(power, kid, right, register) for kid in kids}
    person = _may_sign(power, key.kid, right, register)
    if person in persons:
        raise GridError(f"{person} has signed this already; another person has to be the second")
    if power.valid_to <= now_ms:
        raise GridError(f"it was valid until {local_time(power.valid_to)}: make a new one")
    return envelope.signed_by(key)


def _may_sign(power: Power, kid: str, right: str, register: KeysDocument) -> str:
    """The person behind a key that may sign this power."""
    issuer = register.issuer(kid)
    if issuer is None:
        raise GridError(f"key {kid} is not in register version {register.version}: the registrar adds it")
    who = f"key {kid} ({issuer.person})"
    if register.revoked_at(kid) is not None:
        raise GridError(f"{who} was revoked")
    if not issuer.valid_from <= power.issued_at <= issuer.valid_to:
        raise GridError(
            f"{who} is valid from {local_time(issuer.valid_from)} to {local_time(issuer.valid_to)}, "
            f"this is issued {local_time(power.issued_at)}"
        )
    if right not in issuer.rights:
        raise GridError(f"{who} has no right to {right}; it has {', '.join(issuer.rights)}")
    missing = sorted(set(power.zones) - set(issuer.zones))
    if missing:
        raise GridError(f"{who} has no right in {', '.join(missing)}; it has {', '.join(issuer.zones) or 'no zone'}")
    return issuer.person


def read_power(path: Path, model: type[P]) -> tuple[P, Envelope]:
    """A power from a file; signatures are not judged here.

    Raises:
        GridError: not such a power.
    """
    kind, _ = KINDS[model]
    try:
        envelope = open_envelope(read_bounded(path, MAX_POWER_BYTES).strip(), expected_type=kind)
        canonical.decode(envelope.payload, max_bytes=MAX_POWER_BYTES)
        return model.model_validate_json(envelope.payload), envelope
    except ValidationError as error:
        first = error.errors()[0]
        raise GridError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except WireError as error:
        raise GridError(f"{path}: {error}") from None


def power_text(path: Path, model: type[P]) -> str:
    """A power from a file as an order carries it: base64 of the envelope."""
    _, envelope = read_power(path, model)
    return b64(envelope.encode())


def signers_of(envelope: Envelope, register: KeysDocument | None) -> str:
    """Who has signed, in words; whether that holds is another question."""
    return "; ".join(signer_text(kid, register) for kid, _ in envelope.signatures)
