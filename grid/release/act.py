"""Signing the releases of a plan and keeping them: all are on disk before the first leaves.

A folder belongs to one giving back of one plan. What it holds is sent again as it is; no second release is ever signed
into it for the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from grid.acts import write_envelope
from grid.errors import GridError
from grid.heads import CheckpointSource, Heads
from grid.ordering import new_order, read_order
from grid.release.pace import Pace
from grid.sequence import Sequence as Numbers
from wire.dsse import ORDER_TYPE, seal
from wire.errors import WireError
from wire.keys import SigningKey
from wire.orders import SignedOrder
from wire.registry import KeysDocument

LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Signer:
    """A person's key, with the file beside which its numbers are kept."""

    key: SigningKey
    file: Path


def check_signers(signers: Sequence[Signer], register: KeysDocument, now_ms: int) -> None:
    """May these keys release together?

    Raises:
        GridError: a gateway's key, one without the right, revoked or out of its time, or a person twice.
    """
    persons: set[str] = set()
    for signer in signers:
        kid = signer.key.kid
        issuer = register.issuer(kid)
        person = register.person(issuer.person) if issuer is not None else None
        if issuer is None or person is None:
            raise GridError(f"key {kid} is not in register version {register.version}: the registrar adds it")
        if person.role == "gateway":
            raise GridError(
                f"key {kid} is the gateway's: it never gives load back; a person signs with a key of his own"
            )
        if register.revoked_at(kid) is not None or not issuer.valid_from <= now_ms <= issuer.valid_to:
            raise GridError(f"key {kid} was revoked or is not valid now; the registrar names a new one")
        if "release" not in issuer.rights:
            raise GridError(f"key {kid} has no right to release; it has {', '.join(issuer.rights) or 'none'}")
        if issuer.person in persons:
            raise GridError(f"two keys of {issuer.person}: two signatures need two persons")
        persons.add(issuer.person)


def open_kept(folder: Path) -> Path:
    """The folder of a giving back, made where it is not there; the file of its lock.

    Raises:
        GridError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GridError(f"{folder}: cannot be made: {error.strerror or error}") from None
    return folder / LOCK


def kept(folder: Path, plan: str, register: KeysDocument) -> dict[str, SignedOrder]:
    """Order → the release of it that was signed into this folder.

    Raises:
        GridError: something else lies there; nothing is sent.
    """
    found: dict[str, SignedOrder] = {}
    for path in sorted(folder.glob("*.json")):
        signed = read_order(path)
        order = signed.order
        try:
            signed.envelope.verify(register.verify_keys())
        except WireError as error:
            raise GridError(f"{path}: {error}; move it away") from None
        if order.action != "release" or order.target is None or path.name != file_name(order.site, order.target):
            raise GridError(f"{path}: not a release that this command wrote; choose another folder")
        if order.basis.code != basis_code(plan):
            raise GridError(f"{path}: a release of another plan ({order.basis.code}); choose another folder")
        found[order.target] = signed
    return found


def file_name(site: str, target: str) -> str:
    """Name of a release in its folder."""
    return f"{site}.{target}.json"


def basis_code(plan: str) -> str:
    """Basis of every release of a plan."""
    return f"plan:{plan}"


def sign_all(
    made: Sequence[Pace],
    folder: Path,
    *,
    plan: str,
    signers: Sequence[Signer],
    register: KeysDocument,
    words: Mapping[str, Any],
    central: CheckpointSource | None,
    now_ms: int,
) -> dict[str, SignedOrder]:
    """Sign one release for each order and write all of them. Order → its release.

    Raises:
        GridError: a number or a file cannot be kept; nothing was sent.
    """
    numbers = [Numbers(signer.file, signer.key.kid) for signer in signers]
    heads = Heads(signers[0].file)
    found: dict[str, SignedOrder] = {}
    for pace in made:
        target = pace.found.signed.order
        fields = {name: value for name, value in words.items() if value is not None} | {
            "site": target.site,
            "epoch": target.epoch,
            "action": "release",
            "target": target.id,
            "basis_code": basis_code(plan),
        }
        if pace.rate_w is not None:
            fields["restore_max_kw_per_min"] = Decimal(pace.rate_w) / 1000
        if pace.delay_ms:
            fields["not_before_ms"] = now_ms + pace.delay_ms
        order = new_order(fields, register=register, sequence=numbers[0], now_ms=now_ms, heads=heads, central=central)
        for further in numbers[1:]:
            # Later orders of this person must have higher numbers than the one signed here.
            further.reach(order.site, order.seq)
        path = folder / file_name(order.site, target.id)
        write_envelope(path, seal(ORDER_TYPE, order.encode(), *(signer.key for signer in signers)))
        found[target.id] = read_order(path)
    return found
