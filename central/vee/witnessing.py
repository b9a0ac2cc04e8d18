"""Central's logs of verdicts and their witnesses: checkpoints are offered as sites' are, and what comes back is kept.

Whoever holds K_col can write anything into such a log. What cosignatures add is that it cannot be changed afterwards,
nor be two logs. Nothing is lost if a witness cannot be reached: the newest checkpoint is offered again at every look.

A database that was put back to an older day must not go on from there: what follows would be another history than the
one that was cosigned. So nothing is added to a log before every witness has said, since the start, where it knows it
to stand; and nothing while one of them knows more of it than the database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from central.store.database import Database
from central.store.schema import notes, streams, verdict_logs, verdicts
from central.vee.book import keep_note
from central.witness import note_key
from central.witnesses import Heard, Offer, WitnessRelay
from wire.checkpoints import Checkpoint, cosign
from wire.errors import WireError
from wire.keys import SigningKey, b64
from wire.merkle import EMPTY_ROOT, Frontier, Nodes, consistency_proof
from wire.messages import SizeProof
from wire.names import VERDICTS
from wire.notes import Note, NoteKey, NoteSignature, parse_note, parse_signature_lines
from wire.policy import parse_policy
from wire.registry import KeysDocument
from wire.verdicts import verdict_origin

log = structlog.get_logger(__name__)

MAX_TRIES = 3
"""Proofs made for one witness between two looks: it may name another size each time."""
PATIENCE_MS = 86_400_000
"""So long after the start a witness that does not answer keeps the logs from growing."""
PUT_BACK = (
    "the database was put back to an older day. Restore a newer one, or the newer data_dir/vee; nothing is added before"
)


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


def _sites(connection: Connection) -> list[str]:
    """Sites that are judged here, or will be: their records come here. Of others another central has the log."""
    logs = connection.execute(sa.select(verdict_logs.c.site)).scalars()
    sent = connection.execute(sa.select(streams.c.site).distinct()).scalars()
    return sorted({*logs, *sent})


class VerdictWitnesses:
    """Offers the newest checkpoint of each log to every witness that has not cosigned it, or not spoken of it yet."""

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
        self._spoke: set[tuple[str, str]] = set()
        """(site, witness) that has answered since the start."""
        self._ahead: dict[tuple[str, str], int] = {}
        """(site, witness) that knows more lines than there are here, and how many."""
        self._since_ms = now_ms()

    def hold(self, site: str) -> str | None:
        """Why nothing may be added to the log on a site now; ``None``: it may."""
        names = [key.name for key in self._relay.keys]
        ahead = {name: size for name in names if (size := self._ahead.get((site, name))) is not None}
        if ahead:
            known = ", ".join(f"{name} {size}" for name, size in ahead.items())
            return f"witnesses know more lines of the log than there are here ({known}): {PUT_BACK}"
        silent = [name for name in names if (site, name) not in self._spoke]
        if silent and self._now_ms() < self._since_ms + PATIENCE_MS:
            return f"{', '.join(silent)} has not said yet where it knows the log to stand"
        return None

    async def offer_all(self) -> None:
        """Every log whose newest checkpoint a witness has not cosigned."""
        self._tries.clear()
        for site in await self._database.read(_sites):
            try:
                await self._offer(site)
            except (WireError, sa.exc.SQLAlchemyError) as error:
                log.error("verdicts_not_offered", site=site, error=str(error)[:300])

    async def _offer(self, site: str) -> None:
        now = await self._stand(site)
        own = note_key(self._key)
        if now.size and self._asked_for(own) and now.lacks(own):
            line = cosign(now.note.text, own.name, self._key, self._now_ms() // 1000)
            await self._keep(site, now, (line,))
        for key in self._relay.keys:
            of = (site, key.name)
            if (now.size and now.lacks(key)) or of not in self._spoke or of in self._ahead:
                self._relay.offer(self._made(site, now), key)

    async def _stand(self, site: str) -> Stand:
        """Of a log without a line: its empty checkpoint, to which a witness says whether it knows more."""
        now = await self._database.read(partial(stand, site=site))
        return now or Stand(0, Checkpoint(verdict_origin(site), 0, EMPTY_ROOT).sign(self._key))

    def _asked_for(self, own: NoteKey) -> bool:
        """Does the policy name central too? Then its word on its own log is given, for what that is worth."""
        document = self._register()
        policy = document.policy if document is not None else None
        return policy is not None and own in parse_policy(policy).keys

    def _made(self, site: str, now: Stand, *proofs: SizeProof) -> Offer:
        return Offer((site, VERDICTS), now.note.encode().decode(), proofs, partial(self._heard, site, now))

    async def _heard(self, site: str, now: Stand, heard: Heard) -> None:
        try:
            done = await self._take(site, now, heard)
        except (WireError, sa.exc.SQLAlchemyError) as error:
            log.error("cosignature_not_kept", site=site, witness=heard.witness.name, error=str(error)[:300])
            return
        if done:
            self._spoke.add((site, heard.witness.name))

    async def _take(self, site: str, offered: Stand, heard: Heard) -> bool:
        """Keep or answer what a witness said; false where it has to be asked once more before anything is known."""
        of = (site, heard.witness.name)
        told = {"site": site, "witness": heard.witness.name}
        if heard.lines is not None:
            self._ahead.pop(of, None)
            if offered.size:
                await self._keep(site, offered, parse_signature_lines(heard.lines))
                log.info("verdicts_cosigned", **told, size=offered.size)
            return True
        if heard.error != "conflict":
            self._ahead.pop(of, None)
            log.error("verdicts_not_cosigned", **told, error=heard.error, why=heard.text)
            return True
        now = await self._stand(site)
        if heard.size > now.size:
            self._ahead[of] = heard.size
            why = f"it has {heard.size} lines, central {now.size}: {PUT_BACK}"
            log.error("verdicts_not_cosigned", **told, error=heard.error, why=why)
            return True
        self._ahead.pop(of, None)
        return not await self._prove(site, now, heard)

    async def _prove(self, site: str, now: Stand, heard: Heard) -> bool:
        """The witness stands further back: show that the log only grew since. False where that leads nowhere."""
        tries = self._tries.get((site, heard.witness.name), 0) + 1
        self._tries[site, heard.witness.name] = tries
        if tries > MAX_TRIES:
            log.warning("verdicts_not_cosigned", site=site, witness=heard.witness.name, error="names ever other sizes")
            return False
        proofs: tuple[SizeProof, ...] = ()
        if 0 < heard.size < now.size:
            proofs = (await self._database.read(partial(proof, site=site, old=heard.size, size=now.size)),)
        self._relay.offer(self._made(site, now, *proofs), heard.witness)
        return True

    async def _keep(self, site: str, now: Stand, lines: Sequence[NoteSignature]) -> None:
        def keep(connection: Connection) -> None:
            known = merged(now.note, *kept(connection, site, now.size).values())
            more = merged(known, Note(known.text, tuple(lines)))
            if more != known:
                keep_note(connection, site, now.size, more.encode(), self._now_ms())

        await self._database.write(keep)
