"""All shipped profiles of every kind, meters, relays, breakers and PDUs, in one list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drivers.errors import ProfileError
from drivers.profiles.loader import AnyProfile, load_profile, load_profiles
from drivers.profiles.model import MeterProfile
from drivers.snmp.profile import PduProfile, load_pdu_profile, load_pdu_profiles, read_pdu_profile

EveryProfile = AnyProfile | PduProfile


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ``tizgin profile list``."""

    id: str
    vendor: str
    model: str
    kind: str
    """``meter``, ``relay``, ``breaker`` or ``pdu``."""
    status: str
    points: int
    """Points that are read; of relays and breakers their outputs, inputs and temperatures."""


def catalogue() -> tuple[Entry, ...]:
    """Every shipped profile, by kind and id.

    Raises:
        ProfileError: one of the files is wrong.
    """
    found: list[EveryProfile] = [*load_profiles().values(), *load_pdu_profiles().values()]
    return tuple(sorted(map(entry_of, found), key=lambda entry: (entry.kind, entry.id)))


def entry_of(profile: EveryProfile) -> Entry:
    """The line that stands for a profile."""
    if isinstance(profile, MeterProfile):
        points = len(profile.points)
    elif isinstance(profile, PduProfile):
        points = len(profile.points) + len(profile.sensors)
    else:
        points = len(profile.outputs) + len(profile.inputs) + len(profile.temperatures)
    return Entry(profile.id, profile.vendor, profile.model, profile.kind, profile.status, points)


def any_profile(id_or_path: str | Path) -> EveryProfile:
    """One profile of any kind, by id or by file.

    Raises:
        ProfileError: there is none, or the file is wrong.
    """
    if isinstance(id_or_path, Path) or id_or_path.endswith((".yaml", ".yml")):
        path = Path(id_or_path)
        try:
            return load_profile(path)
        except ProfileError as error:
            try:
                return read_pdu_profile(path)
            except ProfileError as other:
                raise other if _is_pdu(path) else error from None
    try:
        return load_profile(id_or_path)
    except ProfileError as error:
        if id_or_path in load_pdu_profiles():
            return load_pdu_profile(id_or_path)
        raise error from None


def _is_pdu(path: Path) -> bool:
    """Does the file call itself a PDU's profile? Decides which of two errors helps a person."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return any(line.split("#")[0].strip() == "kind: pdu" for line in file.readlines(16_384))
    except OSError:
        return False
