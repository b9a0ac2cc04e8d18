"""Checkpoints of the site's log: signed each slot, shown to the witnesses, kept with their cosignatures.

A checkpoint is on disk before anybody sees it, so that the log can never sign two histories. Once the register's policy
is satisfied the cosigned note becomes the anchor of every later record. What witnesses say is checked against the
register's keys; a note of this log that is larger than the log, or has another root, means that the ledger was put back
to an older day or that a twin runs: then nothing more is signed here, and both sides are alarmed.

A log key in a token may be out of reach: then no checkpoint is made, an alarm says so, and it is tried again; records
go on, and the next checkpoint holds them all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from agent.clock import Clock
from agent.errors import LedgerError
from agent.hsm.key import LogSigner, TokenKey, sign_log
from agent.hsm.process import TokenError
from agent.ledger import Ledger, Txn
from agent.uplink.link import NotConnected
from wire.checkpoints import Checkpoint, cosigned_at, log_key, open_checkpoint, parse_checkpoint
from wire.errors import BadNote
from wire.keys import b64
from wire.messages import CheckpointMessage, Cosign, SizeProof, Want
from wire.names import origin
from wire.notes import Note, NoteKey, NoteSignature, parse_note, parse_signature_lines
from wire.policy import Policy

log = structlog.get_logger()

DELAY_S = 20.0
"""After a slot's end, so that its records are in; at most a sixth of the slot."""
LEAVES_PER_MESSAGE = 4000
RETRY_S = 15.0

Publish = Callable[[CheckpointMessage], Awaitable[None]]


@dataclass(slots=True)
class Counters:
    """For metrics and status."""

    signed: int = 0
    cosignatures: int = 0
    cosigned_size: int = 0
    refused: int = 0
    split: bool = False


@dataclass(slots=True)
class Checkpointer:
    """Owner of the log's checkpoints.

    Args:
        site: site id.
        ledger: the site's ledger.
        key: K_log.
        clock: the agent's clock.
        slot_s: length of a slot.
        policy: the register's policy of now, ``None`` without one.
        publish: sends to topic ``checkpoint``.
    """

    site: str
    ledger: Ledger
    key: LogSigner
    clock: Clock
    slot_s: int
    policy: Callable[[], Policy | None]
    publish: Publish
    cosigned_at: Callable[[int], None] = lambda _ms: None
    """Told when the quorum cosigned: the earliest of its times, ms; the clock cannot be earlier."""
    first: int = 0
    """First place of the log where ``key`` is valid."""
    later: tuple[int, LogSigner] | None = None
    """A place of the log and the key that is valid from there on."""
    registered: Callable[[], Sequence[NoteKey]] = tuple
    """Keys of this log in the register: those that signed it earlier are known by it alone."""
    counters: Counters = field(default_factory=Counters)
    head: Checkpoint | None = None
    """The newest checkpoint that was signed, once :meth:`run` or :meth:`load` has looked."""
    unsigned: str | None = None
    """Why the newest checkpoint could not be signed."""
    _sizes: dict[str, int] = field(default_factory=dict)
    """Witness (key name) → largest size it says it has; a claim that decides only which proofs are sent."""
    _kick: asyncio.Event = field(default_factory=asyncio.Event)
    _greeted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def origin(self) -> str:
        """Origin of this log."""
        return origin(self.site, self.ledger.epoch)

    async def run(self) -> None:
        """Sign after each slot and when asked to; show again what is not yet cosigned. Until cancelled."""
        while True:
            try:
                await self.make()
                await self._show()
            except NotConnected:
                pass
            except LedgerError as error:
                log.error("checkpoint_not_kept", error=str(error))
            wait_s = self._until_next_s()
            if self.unsigned is not None or await self._open():
                wait_s = min(wait_s, RETRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._kick.wait()
            self._kick.clear()

    def again(self) -> None:
        """Look again now: connected anew, or a witness said where it is."""
        self._kick.set()

    def _until_next_s(self) -> float:
        delay_s = min(DELAY_S, self.slot_s / 6)
        now_s = self.clock.now_ms() / 1000
        return self.slot_s - (now_s - delay_s) % self.slot_s + 0.01

    async def make(self) -> None:
        """Sign the log as it is, once per size."""
        if self._has_split():
            return
        size, root = await self.ledger.head()
        known = await self.ledger.read("SELECT 1 FROM checkpoint WHERE size = ?", size)
        key = self._key_of(size - 1)
        if not size or known or key is None:
            return
        checkpoint = Checkpoint(self.origin, size, root)
        try:
            signature = await sign_log(key, checkpoint.text.encode())
        except TokenError as error:
            await self._tell_unsigned(str(error))
            return
        await self._tell_unsigned(None)
        if self._has_split():
            return  # learned while the token was asked
        note = checkpoint.signed(key.public, signature)
        await self.ledger.commit(
            Txn().run("INSERT OR IGNORE INTO checkpoint VALUES (?, ?, ?)", size, self.clock.now_ms(), note.encode())
        )
        self.head = Checkpoint(self.origin, size, root)
        self.counters.signed += 1

    def _has_split(self) -> bool:
        return self.counters.split

    async def _tell_unsigned(self, why: str | None) -> None:
        """The token does not sign, or does again: recorded when it changes."""
        before, self.unsigned = self.unsigned, why
        if (before is None) == (why is None):
            return
        now = "signs" if why is None else "does not sign"
        (log.info if why is None else log.error)("log_key", now=now, why=why)
        detail = {"why": (why or before or "")[:300]}
        event = {"ev": "log_key", "obj": self.key.kid, "now": now, "detail": detail}
        await self.ledger.commit(Txn().record("site", "event", event))

    def status(self) -> dict[str, str | None]:
        """For ``tizgin agent status``."""
        held = f"token {self.key.token.label}" if isinstance(self.key, TokenKey) else "file"
        return {"kid": self.key.kid, "in": held, "unsigned": self.unsigned}

    def _key_of(self, index: int) -> LogSigner | None:
        """The key that is valid at a place of the log; ``None`` where that was an earlier one, which is gone."""
        if self.later is not None and index >= self.later[0]:
            return self.later[1]
        return self.key if index >= self.first else None

    async def load(self) -> None:
        """Take up the newest checkpoint from disk."""
        newest = await self._newest()
        self.head = None if newest is None else parse_checkpoint(parse_note(newest[1]).text)

    async def shown(self, note: str) -> None:
        """Somebody who may order this site names the newest cosigned checkpoint he knows. Never raises."""
        try:
            await self._compare(note.encode())
        except LedgerError as error:
            log.error("checkpoint_not_compared", error=str(error))

    async def _newest(self) -> tuple[int, bytes] | None:
        rows = await self.ledger.read("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1")
        return (int(rows[0][0]), bytes(rows[0][1])) if rows else None

    async def _open(self) -> bool:
        """True while the newest checkpoint is not cosigned by the quorum although there is one to ask."""
        policy, newest = self.policy(), await self._newest()
        if policy is None or policy.quorum is None or newest is None or self.counters.split:
            return False
        return not await self.ledger.read("SELECT 1 FROM cosigned WHERE size = ?", newest[0])

    async def _show(self) -> None:
        """Publish the newest checkpoint with a proof from each size that a witness has, and the leaves since."""
        newest = await self._newest()
        if newest is None or self.counters.split:
            return
        size, note = newest
        olds = sorted({s for s in self._sizes.values() if 0 < s <= size})[:16]
        proofs = []
        for old in olds:
            path = await self.ledger.consistency(old, size)
            proofs.append(SizeProof(old=old, path=tuple(b64(step) for step in path)))
        # What central misses of earlier leaves it asks for.
        first = min(size, max(self._sizes.values(), default=size))
        await self._send(note, size, first, tuple(proofs), submit=True)

    async def _send(
        self, note: bytes, size: int, first: int, proofs: tuple[SizeProof, ...] = (), *, submit: bool = False
    ) -> None:
        begin = first
        while True:
            leaves = await self.ledger.leaves(begin, min(LEAVES_PER_MESSAGE, size - begin)) if begin < size else []
            last = begin + len(leaves) >= size
            await self.publish(
                CheckpointMessage(
                    site=self.site,
                    epoch=self.ledger.epoch,
                    note=note.decode(),
                    # Judged with the last part: by then the collector holds every leaf.
                    submit=submit and last,
                    proofs=proofs if submit and last else (),
                    first=begin,
                    leaves=b64(b"".join(leaves)),
                )
            )
            begin += len(leaves)
            if last:
                return

    async def wanted(self, want: Want) -> None:
        """Central asks for leaf hashes by their place in the log."""
        newest = await self._newest()
        if newest is not None and want.first < newest[0]:
            await self._send(newest[1], min(newest[0], want.last + 1), want.first)

    async def taken(self, said: Cosign) -> None:
        """A witness spoke: check its lines against the register, and what it shows of this log against the log."""
        if said.epoch != self.ledger.epoch:
            return
        if said.latest is not None:
            await self._compare(said.latest.encode())
        if said.previous is not None:
            await self._link(said.previous)
        self._greeted.set()
        if said.lines is not None and said.of_size is not None:
            await self._cosigned(said.of_size, said.lines)
        before = self._sizes.get(said.witness)
        if len(self._sizes) < 64 or said.witness in self._sizes:
            self._sizes[said.witness] = said.size
        if before != said.size and said.error == "conflict":
            self.again()
        if said.error not in (None, "conflict"):
            self.counters.refused += 1
            log.warning("checkpoint_refused", witness=said.witness, error=said.error, text=said.text)

    async def _cosigned(self, size: int, lines: str) -> None:
        policy = self.policy()
        rows = await self.ledger.read("SELECT note FROM checkpoint WHERE size = ?", size)
        if policy is None or not rows:
            return
        note = parse_note(bytes(rows[0][0]))
        for line in parse_signature_lines(lines):
            for key in policy.keys:
                if not line.is_of(key):
                    continue
                at_s = cosigned_at(note.text, line, key)
                await self.ledger.execute(
                    "INSERT OR IGNORE INTO cosignature VALUES (?, ?, ?, ?)", size, key.name, at_s, line.line()
                )
                self.counters.cosignatures += 1
        await self._complete(policy, size, note)

    async def _complete(self, policy: Policy, size: int, note: Note) -> None:
        """Keep the note with its cosignatures once they make the quorum; they then stay as they are."""
        if await self.ledger.read("SELECT 1 FROM cosigned WHERE size = ?", size):
            return
        rows = await self.ledger.read("SELECT name, line, at_s FROM cosignature WHERE size = ? ORDER BY name", size)
        if policy.quorum is None or not policy.satisfied({str(name) for name, *_ in rows}):
            return
        signatures: list[NoteSignature] = list(note.signatures)
        for _, line, _ in rows:
            signatures.extend(parse_signature_lines(str(line)))
        whole = Note(note.text, tuple(signatures)).encode()
        await self.ledger.keep_cosigned(size, whole)
        self.counters.cosigned_size = size
        self.cosigned_at(min(int(row[2]) for row in rows) * 1000)

    async def _compare(self, raw: bytes) -> None:
        """Hold a checkpoint that somebody shows of this log against the log itself."""
        own = [self.key] if self.later is None else [self.key, self.later[1]]
        keys = [*(log_key(self.origin, key.public.raw) for key in own), *self.registered()]
        try:
            shown, _ = open_checkpoint(raw, keys)
        except BadNote:
            return  # of another epoch, or not signed by this log: nobody's proof
        if shown.size == 0 or await self.ledger.root_at(shown.size) == shown.root:
            return
        size, _ = await self.ledger.head()
        await self.split(f"this log signed {shown.size} records with root {shown.root.hex()}; here are {size}")

    async def _link(self, text: str) -> None:
        """Say in this epoch where the one before ended, once: a new ledger cannot hide that there was an older one."""
        if await self.ledger.read("SELECT 1 FROM meta WHERE key = 'epoch_link'"):
            return
        try:
            before = parse_checkpoint(parse_note(text.encode()).text)
        except BadNote:
            return
        prefix, _, epoch = before.origin.rpartition("/")
        if f"{prefix}/{self.ledger.epoch}" != self.origin or epoch == self.ledger.epoch or not before.size:
            return
        # A claim of central's until the bundle's own log shows it; a wrong one is found by the verifier.
        detail = {"epoch": epoch, "size": before.size, "root": before.root.hex(), "note": text}
        txn = Txn().set_meta("epoch_link", epoch)
        txn.record("site", "event", {"ev": "epoch_link", "obj": before.origin, "detail": detail})
        await self.ledger.commit(txn)

    async def split(self, text: str) -> None:
        """This ledger is not the whole history of its log: sign no more checkpoints, say so once."""
        if self.counters.split:
            return
        self.counters.split = True
        log.error("log_split", text=text)

    async def ask_at_start(self, within_s: float) -> str:
        """Wait a bounded time for central's word on this log, before anything is signed.

        Returns:
            ``asked``, or ``unasked`` where nobody answered in time (the answer is heeded whenever it comes).

        Raises:
            LedgerError: witnesses hold a later checkpoint of this log, or another history.
        """
        try:
            async with asyncio.timeout(within_s):
                await self._greeted.wait()
        except TimeoutError:
            return "unasked"
        if self.counters.split:
            raise LedgerError(
                "this ledger is not what its own log has signed (a restored disk image or backup?): move ledger.db "
                "away to begin a new epoch, and have it registered; outputs are then commissioned again"
            )
        return "asked"
