"""Central's logs of verdicts and their witnesses: checkpoints are offered as sites' are, and what comes back is kept.

Whoever holds K_col can write anything into such a log. What cosignatures add is that it cannot be changed afterwards,
nor be two logs. Nothing is lost if a witness cannot be reached: the newest checkpoint is offered again at every look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from central.store.database import Database
from central.store.schema import notes, verdict_logs, verdicts
from central.vee.book import keep_note
from central.witness import note_key
from central.witnesses import Heard, Offer, WitnessRelay
from wire.checkpoints import cosign
from wire.errors import BadNote
from wire.keys import SigningKey, b64
from wire.merkle import Frontier, Nodes, consistency_proof
from wire.messages import SizeProof
from wire.names import VERDICTS
from wire.notes import Note, NoteKey, NoteSignature, parse_note, parse_signature_lines
from wire.policy import parse_policy
from wire.registry import KeysDocument

log = structlog.get_logger(__name__)

MAX_TRIES = 3
"""Proofs made for one witness between two looks: it may name another size each time."""


@dataclass(frozen=True, slots=True)
class Stand:
    """The newest checkpoint of a log of verdicts, with the cosignatures that are there."""

    size: int
    note: Note

    def lacks(self, key: NoteKey) -> bool:
        """True where this witness has not cosigned it."""
        return not self.note.of(key)


def merged(first: Note, *others: Note) -> Note:
    """One note with every signature line of notes with the text of the first, each once, in the order of coming."""
    lines: dict[tuple[str, bytes], NoteSignature] = {}
    for note in (first, *others):
        for line in note.signatures if note.text == first.text else ():
            lines.setdefault((line.name, line.key_id), line)
    return Note(first.text, tuple(lines.values()))


def kept(connection: Connection, site: str, size: int | None = None) -> dict[int, Note]:
    """Size → checkpoint with all cosignatures that were kept; of one size, or of all."""
    query = sa.select(notes.c.size, notes.c.note).where(notes.c.site == site, notes.c.epoch == VERDICTS)
    query = query.order_by(notes.c.size, notes.c.received_at, sa.func.length(notes.c.note))
    found: dict[int, list[Note]] = {}
    for row in connection.execute(query if size is None else query.where(notes.c.size == size)):
        found.setdefault(int(row.size), []).append(parse_note(bytes(row.note)))
    return {n: merged(*same) for n, same in found.items()}


def stand(connection: Connection, site: str) -> Stand | None:
    """Where a log of verdicts stands; ``None`` where there is none."""
    row = connection.execute(sa.select(verdict_logs).where(verdict_logs.c.site == site)).first()
    if row is None:
        return None
    size, signed = int(row.size), parse_note(bytes(row.note))
    return Stand(size, merged(signed, *kept(connection, site, size).values()))


def hashes(connection: Connection, site: str, size: int) -> list[bytes]:
    """Leaf hashes of the first ``size`` lines."""
    query = sa.select(verdicts.c.hash).where(verdicts.c.site == site, verdicts.c.n < size).order_by(verdicts.c.n)
    return [bytes(row.hash) for row in connection.execute(query)]


def proof(connection: Connection, site: str, old: int, size: int) -> SizeProof:
    """That the log only grew from ``old`` to ``size``."""
    leaves = hashes(connection, site, size)
    return SizeProof(old=old, path=tuple(b64(step) for step in consistency_proof(_nodes(leaves), old, size)))


def _nodes(leaves: Sequence[bytes]) -> Nodes:
    def node(height: int, index: int) -> bytes:
        tree = Frontier()
        tree.extend(leaves[index << height : (index + 1) << height])
        return tree.root()

    return node


class VerdictWitnesses:
    """Offers the newest checkpoint of each log to every witness that has not cosigned it."""

    def __init__(
        self,
        database: Database,
        relay: WitnessRelay,
        register: Callable[[], KeysDocument | None],
        key: SigningKey,
        now_ms: Callable[[], int],
    ) -> None:
        self._database, self._relay, self._register = database, relay, register
        self._key, self._now_ms = key, now_ms
        self._tries: dict[tuple[str, str], int] = {}

    async def offer_all(self) -> None:
        """Every log whose newest checkpoint a witness has not cosigned."""
        self._tries.clear()
        for (site,) in await self._database.read(lambda c: c.execute(sa.select(verdict_logs.c.site)).all()):
            try:
                await self._offer(site)
            except (BadNote, sa.exc.SQLAlchemyError) as error:
                log.error("verdicts_not_offered", site=site, error=str(error)[:300])

    async def _offer(self, site: str) -> None:
        now = await self._database.read(partial(stand, site=site))
        if now is None:
            return
        own = note_key(self._key)
        if self._asked_for(own) and now.lacks(own):
            line = cosign(now.note.text, own.name, self._key, self._now_ms() // 1000)
            await self._keep(site, now, (line,))
        for key in self._relay.keys:
            if now.lacks(key):
                self._relay.offer(self._made(site, now), key)

    def _asked_for(self, own: NoteKey) -> bool:
        """Does the policy name central too? Then its word on its own log is given, for what that is worth."""
        document = self._register()
        policy = document.policy if document is not None else None
        return policy is not None and own in parse_policy(policy).keys

    def _made(self, site: str, now: Stand, *proofs: SizeProof) -> Offer:
        return Offer((site, VERDICTS), now.note.encode().decode(), proofs, partial(self._heard, site, now))

    async def _heard(self, site: str, now: Stand, heard: Heard) -> None:
        try:
            if heard.lines is not None:
                await self._keep(site, now, parse_signature_lines(heard.lines))
                log.info("verdicts_cosigned", site=site, size=now.size, witness=heard.witness.name)
            elif heard.error == "conflict" and heard.size <= now.size:
                await self._prove(site, now, heard)
            else:
                why = heard.text or f"it has {heard.size} lines, central {now.size}: was the database put back?"
                log.error("verdicts_not_cosigned", site=site, witness=heard.witness.name, error=heard.error, why=why)
        except (BadNote, sa.exc.SQLAlchemyError) as error:
            log.error("cosignature_not_kept", site=site, witness=heard.witness.name, error=str(error)[:300])

    async def _prove(self, site: str, now: Stand, heard: Heard) -> None:
        """The witness stands further back: show that the log only grew since."""
        tries = self._tries.get((site, heard.witness.name), 0) + 1
        self._tries[site, heard.witness.name] = tries
        if tries > MAX_TRIES:
            log.warning("verdicts_not_cosigned", site=site, witness=heard.witness.name, error="names ever other sizes")
            return
        proofs: tuple[SizeProof, ...] = ()
        if 0 < heard.size < now.size:
            proofs = (await self._database.read(partial(proof, site=site, old=heard.size, size=now.size)),)
        self._relay.offer(self._made(site, now, *proofs), heard.witness)

    async def _keep(self, site: str, now: Stand, lines: Sequence[NoteSignature]) -> None:
        def keep(connection: Connection) -> None:
            known = merged(now.note, *kept(connection, site, now.size).values())
            more = merged(known, Note(known.text, tuple(lines)))
            if more != known:
                keep_note(connection, site, now.size, more.encode(), self._now_ms())

        await self._database.write(keep)
