"""Register against site, one machine at a time: a change of one machine costs the same at 10 and at 30,000.

What a machine did not say stays unknown: one that gives neither serial number nor MAC is *unidentified*, never
*unregistered*; one that was never read is *unread*. Only identities that were given are compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.inventory.identity import Identity, model_key, place_key
from agent.inventory.register import Entry


class Standing(StrEnum):
    """How one machine of the site stands to the register; exactly one of these."""

    REGISTERED = "registered"
    UNREGISTERED = "unregistered"
    """It gave an identity, and the register has none such."""
    UNIDENTIFIED = "unidentified"
    """It answered and gave neither serial number nor MAC."""
    UNREAD = "unread"
    """It never answered."""


class Flag(StrEnum):
    """What else is to be said of a machine; any number of these."""

    DUPLICATED = "duplicated"
    """Its serial number or MAC is given at another address too."""
    MOVED = "moved"
    """The register has it in another group of the site, or at another address."""
    MIXED = "mixed"
    """Serial number and MAC are not those of one entry: a control board was exchanged, or a number is wrong."""
    MODEL_CHANGED = "model_changed"
    FIRMWARE_CHANGED = "firmware_changed"
    """Since it was last seen before."""
    REPLACED = "replaced"
    """Another machine stood at this address when it was last seen before."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine of the site file stands."""

    group: str
    address: str | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One machine with everything that is known of it."""

    machine: str
    standing: Standing
    flags: tuple[Flag, ...]
    place: Place
    seen: Identity | None
    before: Identity | None
    """Identity at the last sighting before, where it was another."""
    entry: Entry | None
    also: tuple[str, ...] = ()
    """Other machines of the same serial number or MAC, at most :data:`MAX_ALSO`."""

    @property
    def owner(self) -> str | None:
        """The register's word, else the group's tenant, else unknown."""
        return self.entry.owner if self.entry is not None and self.entry.owner is not None else self.place.tenant


MAX_ALSO = 8


@dataclass(frozen=True, slots=True)
class Counts:
    """The whole site in numbers."""

    machines: int
    registered: int
    unregistered: int
    unidentified: int
    unread: int
    entries: int
    missing: int
    """Entries of the register that no machine was seen to be. Unread and unidentified machines may be among them."""
    duplicated_keys: int
    """Serial numbers and MACs given at more than one address."""


class _Machine:
    """What is kept of one machine."""

    __slots__ = ("before", "entry", "identity", "mixed", "place", "standing")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.identity: Identity | None = None
        self.before: Identity | None = None
        self.entry: int | None = None
        self.mixed = False
        self.standing = Standing.UNREAD


class Reconciler:
    """Register and site, kept matched.

    Args:
        entries: the register; each serial number and MAC is there once, as the import sees to it.
        places: every machine of the site file.
    """

    def __init__(self, entries: Iterable[Entry], places: Mapping[str, Place]) -> None:
        self.entries = tuple(entries)
        self._by_serial = {e.serial: at for at, e in enumerate(self.entries) if e.serial is not None}
        self._by_mac = {e.mac: at for at, e in enumerate(self.entries) if e.mac is not None}
        self._groups = {key for place in places.values() if (key := place_key(place.group)) is not None}
        self._machines = {name: _Machine(place) for name, place in places.items()}
        self._holders: dict[str, set[str]] = {}
        """Serial number or MAC → machines that gave it."""
        self._duplicated: set[str] = set()
        self._matched: dict[int, set[str]] = {}
        """Entry → machines that were seen to be it."""
        self._count = dict.fromkeys(Standing, 0)
        self._count[Standing.UNREAD] = len(self._machines)

    def take(self, machine: str, identity: Identity) -> tuple[Identity | None, Identity] | None:
        """A machine was read. Returns (identity before, now) where it changed, else ``None``.

        A part that it does not say this time is no change: what it said before stays.

        Raises:
            KeyError: no such machine in the site file.
        """
        known = self._machines[machine]
        was = known.identity
        now = identity if was is None else _kept(was, identity)
        if now == was:
            return None
        self._forget(machine, known)
        known.identity = now
        if was is not None and any(changes(was, now)):
            known.before = was
        for key in _keys(now):
            holders = self._holders.setdefault(key, set())
            holders.add(machine)
            if len(holders) > 1:
                self._duplicated.add(key)
        known.entry, known.mixed = self._match(now)
        if known.entry is not None:
            self._matched.setdefault(known.entry, set()).add(machine)
        self._stand(known)
        return was, now

    def _forget(self, machine: str, known: _Machine) -> None:
        for key in () if known.identity is None else _keys(known.identity):
            holders = self._holders[key]
            holders.discard(machine)
            if len(holders) <= 1:
                self._duplicated.discard(key)
            if not holders:
                del self._holders[key]
        if known.entry is not None:
            seen = self._matched[known.entry]
            seen.discard(machine)
            if not seen:
                del self._matched[known.entry]

    def _match(self, identity: Identity) -> tuple[int | None, bool]:
        """The entry a machine is, and whether serial number and MAC disagree about it."""
        by_serial = self._by_serial.get(identity.serial) if identity.serial is not None else None
        by_mac = self._by_mac.get(identity.mac) if identity.mac is not None else None
        found = by_serial if by_serial is not None else by_mac
        if found is None:
            return None, False
        entry = self.entries[found]
        other = by_mac is not None and by_mac != found
        serial = None not in (identity.serial, entry.serial) and identity.serial != entry.serial
        mac = None not in (identity.mac, entry.mac) and identity.mac != entry.mac
        return found, other or serial or mac

    def _stand(self, known: _Machine) -> None:
        self._count[known.standing] -= 1
        if known.identity is None:
            known.standing = Standing.UNREAD
        elif not known.identity.named:
            known.standing = Standing.UNIDENTIFIED
        else:
            known.standing = Standing.UNREGISTERED if known.entry is None else Standing.REGISTERED
        self._count[known.standing] += 1

    # asking ----------------------------------------------------------------------------------------------------------

    @property
    def machine_ids(self) -> Collection[str]:
        """Machines of the site file."""
        return self._machines.keys()

    def counts(self) -> Counts:
        """The site in numbers; costs nothing."""
        return Counts(
            machines=len(self._machines),
            registered=self._count[Standing.REGISTERED],
            unregistered=self._count[Standing.UNREGISTERED],
            unidentified=self._count[Standing.UNIDENTIFIED],
            unread=self._count[Standing.UNREAD],
            entries=len(self.entries),
            missing=len(self.entries) - len(self._matched),
            duplicated_keys=len(self._duplicated),
        )

    def finding(self, machine: str) -> Finding:
        """Everything about one machine.

        Raises:
            KeyError: no such machine in the site file.
        """
        known = self._machines[machine]
        entry = None if known.entry is None else self.entries[known.entry]
        also: list[str] = []
        duplicated = False
        for key in () if known.identity is None else _keys(known.identity):
            if key in self._duplicated:
                duplicated = True
                also += [name for name, _ in zip(self._holders[key], range(MAX_ALSO + 1), strict=False)]
        flags = [Flag.DUPLICATED] if duplicated else []
        flags += self._compared(known, entry)
        others = tuple(sorted(set(also) - {machine}))[:MAX_ALSO]
        return Finding(machine, known.standing, tuple(flags), known.place, known.identity, known.before, entry, others)

    def _compared(self, known: _Machine, entry: Entry | None) -> Iterator[Flag]:
        now, before = known.identity, known.before
        if now is None:
            return
        if known.mixed:
            yield Flag.MIXED
        if entry is not None:
            if self._moved(known.place, entry):
                yield Flag.MOVED
            if differ(model_key(entry.model), model_key(now.model)):
                yield Flag.MODEL_CHANGED
        if before is not None:
            yield from changes(before, now)

    def _moved(self, place: Place, entry: Entry) -> bool:
        if entry.address is not None and place.address is not None and entry.address != place.address:
            return True
        written = place_key(entry.group)
        # A place that is no group of the site file cannot be compared: nothing is said about it.
        return written in self._groups and written != place_key(place.group)

    def findings(self) -> Iterator[Finding]:
        """Every machine of the site file, in its order."""
        return (self.finding(machine) for machine in self._machines)

    def missing(self) -> list[Entry]:
        """Entries that no machine was seen to be, in the register's order."""
        return [entry for at, entry in enumerate(self.entries) if at not in self._matched]

    def duplicates(self) -> dict[str, tuple[str, ...]]:
        """Serial numbers and MACs given at more than one address → the machines, sorted."""
        return {key: tuple(sorted(self._holders[key])) for key in sorted(self._duplicated)}

    def identities(self) -> dict[str, Identity]:
        """What is known of every machine that was ever read."""
        return {name: known.identity for name, known in self._machines.items() if known.identity is not None}


def reconcile(entries: Iterable[Entry], places: Mapping[str, Place], seen: Mapping[str, Identity]) -> Reconciler:
    """Match a register and one look at the site."""
    found = Reconciler(entries, places)
    for machine, identity in seen.items():
        found.take(machine, identity)
    return found


def changes(before: Identity, now: Identity) -> Iterator[Flag]:
    """What is different between two sightings at one address; what either did not say is no difference."""
    if differ(before.serial, now.serial) or (None in (before.serial, now.serial) and differ(before.mac, now.mac)):
        yield Flag.REPLACED
        return
    if differ(before.firmware, now.firmware):
        yield Flag.FIRMWARE_CHANGED


def differ(one: str | None, other: str | None) -> bool:
    """True where both are known and not the same."""
    return one is not None and other is not None and one != other


def _kept(was: Identity, now: Identity) -> Identity:
    """The new sighting, with what it left unsaid taken from the old one where it is still the same machine."""
    if differ(was.serial, now.serial) or differ(was.mac, now.mac):
        return now
    if was == now:
        return was
    return Identity(
        serial=now.serial or was.serial,
        mac=now.mac or was.mac,
        model=now.model or was.model,
        firmware=now.firmware or was.firmware,
    )


def _keys(identity: Identity) -> tuple[str, ...]:
    """Its keys in one space: no serial number has colons."""
    return tuple(key for key in (identity.serial, identity.mac) if key is not None)
