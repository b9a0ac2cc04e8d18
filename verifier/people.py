"""Signed words of people outside the site: the act of an inspector. Who may say it stands in the register."""

from __future__ import annotations

from collections.abc import Mapping

from verifier.canonical import Object, read_canonical
from verifier.keys import Envelope, read_envelope
from verifier.register import Register, Signer

ACT_TYPE = "application/vnd.tizgin.act.v1+json"
MAX_ACT = 65_536
OUTSIDE = frozenset({"regulator", "system_operator", "grid_company"})
"""Roles that do not belong to the site."""


def read_act(data: bytes) -> tuple[Object, Envelope]:
    """Payload and envelope of an act; signatures are judged by :func:`signer`.

    Raises:
        ValueError: not an act.
        InputLimit: larger or deeper than any honest one.
    """
    envelope = read_envelope(data, ACT_TYPE, max_bytes=MAX_ACT)
    return read_canonical(envelope.payload, max_bytes=MAX_ACT), envelope


def signer(envelope: Envelope, register: Register, at_ms: int) -> Signer | None:
    """The person who signed and may vouch for this site at that time; ``None`` where nobody did.

    Raises:
        ValueError: a known key's signature is wrong, or a key signs twice.
    """
    return _valid(envelope, register.inspectors, register.revoked, at_ms)


def _valid(
    envelope: Envelope, inspectors: Mapping[str, Signer], revoked: Mapping[str, int], at_ms: int
) -> Signer | None:
    keys = {kid: one.key for kid, one in inspectors.items()}
    for kid in envelope.good_signers(keys):
        found = inspectors[kid]
        if found.valid_from <= at_ms <= found.valid_to and revoked.get(kid, at_ms + 1) > at_ms:
            return found
    return None
