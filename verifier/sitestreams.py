"""Every stream of an epoch that is not a metering point's: the site's own, orders, balances."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from verifier.archive import Bundle, Entry
from verifier.balance import Balances
from verifier.commands import Claim, CommandStream
from verifier.epochs import EpochWalk
from verifier.errors import GenesisError, InputLimit, VerifyError
from verifier.log import EpochLog, places_of
from verifier.plausible.around import Around
from verifier.records import Record, read_stream
from verifier.register import Register
from verifier.report import Report
from verifier.shown import check_shown
from verifier.switches import Switches


@dataclass(slots=True)
class SiteStreams:
    """Reads them, epoch after epoch; what is wrong goes into the report."""

    bundle: Bundle
    register: Register
    report: Report
    switches: Switches
    balances: Balances
    around: Around
    claims: list[Claim] = field(default_factory=list)
    """Reports of orders, to be held against the meters."""

    def read(self, walk: EpochWalk, streams: Mapping[str, Entry], log: EpochLog | None) -> int:
        """One epoch; how many records it has in these streams.

        Raises:
            InputLimit: a stream holds what no honest writer makes.
        """
        register, epoch, before = self.register, walk.epoch, self.report.records
        commands = CommandStream(register.site, epoch, register.issuers)
        # Positions of switches and the genesis stand in 'site', so it is read before the meters.
        for stream in sorted(streams, key=lambda name: (name != "site", name)):
            if stream.startswith("mp:"):
                continue
            entry = streams[stream]
            index = self.bundle.entries.get(f"{entry.name.removesuffix('.tzr')}.idx")
            try:
                places = places_of(self.bundle, index, entry.name) if log is not None else None
                lines = read_stream(
                    self.bundle,
                    entry,
                    site=register.site,
                    keys=walk.keys,
                    log=log,
                    places=places,
                    revoked=register.revoked,
                )
                counted = self.around.watch(self.report.counted(_noting(lines, walk), faults=True))
                if stream == "site":
                    self.switches.feed(walk.watch(_with_genesis(counted, register, epoch)))
                elif stream == "cmd":
                    commands.feed(counted)
                else:
                    self.balances.feed(counted)
            except InputLimit:
                raise
            except VerifyError as error:
                self.report.errors.append(error)
        self.report.errors.extend(commands.errors)
        self.report.doubts.extend(commands.doubts)
        self.report.orders += commands.orders
        self.report.answers += commands.answers
        self.claims.extend(commands.claims)
        if log is not None:
            origin = f"tizgin/{register.site}/{epoch}"
            self.report.errors.extend(check_shown(log, commands.shown, origin, register.logs[epoch]))
        return self.report.records - before


def _noting(records: Iterator[Record], walk: EpochWalk) -> Iterator[Record]:
    for record in records:
        walk.used.add(record.kid)
        yield record


def _with_genesis(records: Iterator[Record], register: Register, epoch: str) -> Iterator[Record]:
    """The records of a ``site`` stream, its first one checked against the register."""
    empty = True
    for record in records:
        if empty:
            doc = record.doc
            slot_s, k_rec = doc.get("slot_s"), doc.get("k_rec")
            own = base64.b64encode(register.epochs[epoch][0].key.raw).decode()
            if record.ty != "genesis" or doc.get("site") != register.site:
                raise GenesisError(f"{record.where}: a {record.ty} record, expected the genesis of {register.site}")
            if slot_s != register.slot_s or k_rec != own or doc.get("simulation") is not register.simulation:
                raise GenesisError(f"{record.where}: slot length, key or simulation mark differ from the register")
        elif record.ty == "genesis":
            raise GenesisError(f"{record.where}: a second genesis in one epoch")
        empty = False
        yield record
    if empty:
        raise GenesisError(f"epoch {epoch}: the stream 'site' is empty")
