"""What a message is, before anything is stored. Hostile input ends here as a reason, never as an exception."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from central.collector.link import Arrived
from central.store.evidence import Incoming, RecordKeys, judge
from wire import batch as batches
from wire.batch import Batch
from wire.canonical import MAX_INT
from wire.errors import WireError
from wire.messages import (
    MAX_MESSAGE,
    CertRequest,
    CheckpointMessage,
    Heads,
    Inventory,
    Live,
    Progress,
    State,
    decode,
)
from wire.names import UP, check_epoch, parse_topic
from wire.records import parse_line

M = TypeVar("M", State, Live, Progress, Heads, Inventory, CheckpointMessage, CertRequest)

PAST_MS = 90 * 86_400_000
FUTURE_MS = 5 * 60_000
MAX_LINES = 2000
KNOWN_QUALITY = 255


class Refused(Exception):
    """A message that is not taken; ``code`` is counted, the text is kept beside the bytes."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something refused, for the quarantine table."""

    site: str
    topic: str
    code: str
    detail: str
    body: bytes


@dataclass(slots=True)
class Sorted:
    """One message, taken apart."""

    message: Arrived
    site: str = ""
    name: str = ""
    evidence: list[Incoming] = field(default_factory=list)
    batch: Batch | None = None
    heads: Heads | None = None
    inventory: Inventory | None = None
    checkpoint: CheckpointMessage | None = None
    state: State | None = None
    live: Live | None = None
    progress: Progress | None = None
    request: CertRequest | None = None
    quarantined: list[Quarantined] = field(default_factory=list)


def in_time(at_ms: int, now_ms: int) -> bool:
    """Within the contract's [−90 d, +5 min]."""
    return now_ms - PAST_MS <= at_ms <= now_ms + FUTURE_MS


class Sorter:
    """Takes messages apart. The site is the one in the topic, which the broker enforces."""

    def __init__(self, sites: Callable[[], Collection[str]], keys: Callable[[str], RecordKeys]) -> None:
        self._sites = sites
        self._keys = keys

    def sort(self, message: Arrived) -> Sorted:
        """Take one message apart; whatever is wrong with it ends in ``quarantined``."""
        result = Sorted(message)
        try:
            topic = parse_topic(message.topic)
            if topic.site not in self._sites():
                raise Refused("unknown_site", f"site {topic.site!r} is not registered here")
            result.site, result.name = topic.site, topic.name
            if len(message.payload) > MAX_MESSAGE:
                raise Refused("size", f"{len(message.payload)} bytes, at most {MAX_MESSAGE}")
            self._take(result, message)
        except Refused as error:
            result.quarantined.append(self.refusal(result, error.code, str(error)))
        except (WireError, UnicodeError, RecursionError) as error:
            result.quarantined.append(self.refusal(result, "format", str(error)))
        return result

    @staticmethod
    def refusal(result: Sorted, code: str, text: str) -> Quarantined:
        """The whole message, to be kept aside under a reason."""
        clean = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:300]
        name = result.name if result.name in UP else "other"
        return Quarantined(result.site or "unknown", name, code, clean, result.message.payload)

    def _take(self, result: Sorted, message: Arrived) -> None:
        raw, now = message.payload, message.received_ms
        match result.name:
            case "evidence" | "answer":
                self._take_lines(result, raw, now)
            case "bulk":
                result.batch = self._batch(result.site, raw, now)
            case "state":
                result.state = self._own(result.site, decode(State, raw))
            case "live":
                live = self._own(result.site, decode(Live, raw))
                if not in_time(live.at, now):
                    raise Refused("time", f"live of {live.at} ms, now is {now}")
                result.live = live
            case "progress":
                progress = self._own(result.site, decode(Progress, raw))
                if not in_time(progress.at, now):
                    raise Refused("time", f"progress of {progress.at} ms, now is {now}")
                result.progress = progress
            case _:
                self._take_claim(result, raw)

    def _take_claim(self, result: Sorted, raw: bytes) -> None:
        match result.name:
            case "heads":
                heads = self._own(result.site, decode(Heads, raw))
                if len(heads.streams) > 5000:
                    raise Refused("size", f"heads of {len(heads.streams)} streams, at most 5000")
                result.heads = heads
            case "inventory":
                result.inventory = self._own(result.site, decode(Inventory, raw))
            case "checkpoint":
                result.checkpoint = self._own(result.site, decode(CheckpointMessage, raw))
            case "csr":
                result.request = self._own(result.site, decode(CertRequest, raw))
            case other:
                raise Refused("topic", f"{other} is not written by sites")

    @staticmethod
    def _own(site: str, message: M) -> M:
        if message.site != site:
            raise Refused("other_site", f"the message names site {message.site!r}, its topic {site!r}")
        return message

    def _take_lines(self, result: Sorted, raw: bytes, now: int) -> None:
        lines = raw.removesuffix(b"\n").split(b"\n")
        if len(lines) > MAX_LINES:
            raise Refused("size", f"{len(lines)} lines, at most {MAX_LINES}")
        for line in lines:
            try:
                result.evidence.append(self._line(result.site, line, now))
            except Refused as error:
                result.quarantined.append(Quarantined(result.site, result.name, error.code, str(error), line))
            except (WireError, UnicodeError, RecursionError) as error:
                refusal = self.refusal(result, "format", str(error))
                result.quarantined.append(Quarantined(result.site, result.name, "format", refusal.detail, line))

    def _line(self, site: str, line: bytes, now: int) -> Incoming:
        record, doc = parse_line(line)
        words = doc["log"].split("/") if isinstance(doc["log"], str) else []
        if len(words) != 3 or words[0] != "tizgin" or words[1] != site:
            raise Refused("other_site", f"the record is of log {str(doc['log'])[:80]!r}, its topic of site {site!r}")
        epoch = check_epoch(words[2])
        if not in_time(doc["at"], now):
            raise Refused("time", f"record of {doc['at']} ms, now is {now}")
        return Incoming(site, epoch, line, record, doc, judge(record, epoch, self._keys(site)))

    @staticmethod
    def _batch(site: str, raw: bytes, now: int) -> Batch:
        batch = batches.decode(raw)
        if batch.site != site:
            raise Refused("other_site", f"the batch is of site {batch.site!r}, its topic {site!r}")
        if batch.n > MAX_INT:
            raise Refused("format", f"batch number {batch.n} needs more than 53 bits")
        times = [batch.t0 + extreme for part in batch.parts if part.dt for extreme in (min(part.dt), max(part.dt))]
        for at in (batch.t0, *times):
            if not in_time(at, now):
                raise Refused("time", f"batch value of {at} ms, now is {now}")
        for column in chain.from_iterable(part.cols.values() for part in batch.parts):
            codes = column.q if isinstance(column.q, list) else [column.q]
            if codes and not 0 <= min(codes) <= max(codes) <= KNOWN_QUALITY:
                raise Refused("format", "a quality code is not within 0 to 255")
        if any("\0" in name for part in batch.parts for name in part.dev) or "\0" in batch.boot + batch.clk:
            raise Refused("format", "a name holds a NUL character")
        return batch
