"""A record or log key is exchanged for a new one, while the agent runs and without a hole in the evidence.

The register comes first. A person asks for the change; the agent makes the new key and names a place of the log where
it will take over, some records ahead. Only if the registrar has entered the new key from exactly that place on, and the
register is here in time, does the ledger write ``key_rotate`` before it and sign on with the new key. So nobody ever
holds a record whose key is not in the register he was given; a change that comes too late does not happen, and is asked
for again. The old key stays valid in the register until it is seen that the new one signs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from agent.checkpoints import Checkpointer
from agent.clock import Clock
from agent.errors import AgentError, LedgerError
from agent.hsm.key import LogSigner, TokenKey, sign_log
from agent.hsm.process import Token
from agent.identity import NEXT, Keys, make_next, promote
from agent.ledger import Appended, Ledger, Txn
from agent.ledger.signer import PLANNED, Planned
from agent.register import Register
from wire.canonical import Json
from wire.errors import WireError
from wire.registry import Epoch, RegisteredSite
from wire.rotation import ROLES, KeyChange

log = structlog.get_logger()

DAY_MS = 86_400_000
AHEAD = 20
"""Fewest records between the request and the change; by default as many as the last day had."""
MAX_AHEAD = 1_000_000


def settle(state_dir: Path, keys: Keys, ledger: Ledger) -> Keys:
    """The keys that sign by the ledger's word, after a start; a change that a kill cut off is finished.

    Raises:
        LedgerError: the ledger names a log key that is not here.
    """
    if keys.next_rec is not None and ledger.key.kid == keys.next_rec.kid:
        keys = promote(state_dir, keys, "k_rec")
    kid = ledger.meta("log_kid")
    if keys.next_log is not None and kid == keys.next_log.kid:
        keys = promote(state_dir, keys, "k_log")
    if kid is not None and kid != keys.log.kid:
        raise LedgerError(
            f"the ledger's log key is {kid}, log.key holds {keys.log.kid}: restore the key, or move the ledger away to "
            "begin a new epoch"
        )
    if kid is None:
        ledger.read_now("INSERT INTO meta VALUES ('log_kid', ?)", keys.log.kid)
    return keys


@dataclass(slots=True)
class Rotation:
    """Owner of the change that is under way, if there is one.

    Args:
        site: id of the site.
        state_dir: where the keys are.
        keys: those in force.
        ledger: the site's ledger.
        register: asked whether the registrar has entered the new key.
        checkpointer: told of a new log key before it is valid.
        clock: the agent's clock.
    """

    site: str
    state_dir: Path
    keys: Keys
    ledger: Ledger
    register: Register
    checkpointer: Checkpointer
    clock: Clock
    token: Token | None = None
    """Where the site file says that a new log key is made; in a file where it says nothing."""
    waits: str | None = None
    """Why the change that is asked for is not going to happen yet; ``None`` where it is, or none is asked for."""
    missed: bool = False
    planned: KeyChange | None = None
    _fields: Json = field(default_factory=dict)
    """Of the ``key_rotate`` record of what is planned."""
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def listen(self) -> None:
        """Hear of records that were written, and of registers that came."""
        self.ledger.on_append(self._written)
        self.register.changed = self.arm

    def alarms(self) -> set[str]:
        """What a person has to do something about."""
        return {"key_change_missed"} if self.missed else set()

    def status(self) -> dict[str, Any] | None:
        """For ``tizgin agent status``."""
        if self.planned is None:
            return None
        return {"role": self.planned.role, "new": self.planned.new.text, "from_index": self.planned.from_index,
                "waits": self.waits}  # fmt: skip

    async def take(self, doc: Mapping[str, Any]) -> str:
        """A person asks for a change: ``role``, ``who``, how many ``records`` ahead (null: a day's), and of a log key
        ``to``: ``file`` or ``token`` (null: where the site file says).

        Returns:
            What the registrar needs, as JSON: the change with the proofs of both keys.

        Raises:
            WireError: not such a request, or another change is under way.
            AgentError: a token that is needed did not sign.
        """
        async with self._asking:
            return await self._take(doc)

    async def _take(self, doc: Mapping[str, Any]) -> str:
        role, who, ahead = doc["role"], str(doc["who"])[:100], doc.get("records")
        if role not in ROLES or not who.strip():
            raise WireError(f"expected role {' or '.join(ROLES)} and a name, saw {str(role)[:20]!r} and {who[:20]!r}")
        if ahead is not None and (type(ahead) is not int or not AHEAD <= ahead <= MAX_AHEAD):
            raise WireError(f"records: saw {str(ahead)[:20]}, expected {AHEAD} to {MAX_AHEAD}")
        token = self._place(role, doc.get("to"))
        await self._load()
        if self.planned is not None and self.planned.role != role:
            raise WireError(f"a change of {self.planned.role} is under way: one at a time")
        moves = self.planned is not None and doc.get("to") is not None and self._lives(self._next(role)) != doc["to"]
        if self.planned is None or self.missed or moves or ahead is not None:
            try:
                await self._plan(role, who, ahead, token)
            except AgentError:
                await self.arm()  # what was planned before stays
                raise
        await self.arm()
        if self.planned is None:
            raise WireError("the change has just happened")
        return json.dumps({"v": 1, "site": self.site, "epoch": self.ledger.epoch, **self._fields})

    def _place(self, role: str, to: object) -> Token | None:
        """Where the new key is to live."""
        if to not in (None, "file", "token") or (to == "token" and role != "k_log"):
            raise WireError(f"to: saw {str(to)[:20]!r}, expected file, or token for the log key")
        if to == "token" and self.token is None:
            raise WireError("the site file names no token for the log key: enter keys.log.pkcs11, start the agent anew")
        return None if to == "file" or role != "k_log" else self.token

    @staticmethod
    def _lives(key: LogSigner) -> str:
        return "token" if isinstance(key, TokenKey) else "file"

    async def _plan(self, role: str, who: str, ahead: int | None, token: Token | None) -> None:
        await self.ledger.plan(None)
        if role == "k_log":
            self.checkpointer.later = None
        self.keys = await asyncio.to_thread(make_next, self.state_dir, self.keys, role, token)
        size, _ = await self.ledger.head()
        if ahead is None:
            since = self.clock.now_ms() - DAY_MS
            rows = await self.ledger.read("SELECT count(*) FROM record WHERE at > ?", since)
            ahead = min(MAX_AHEAD, max(AHEAD, int(rows[0][0])))
        index, old, new = size + ahead, self._old(role), self._next(role)
        change = KeyChange(self.site, self.ledger.epoch, role, old.public, new.public, index)
        said = change.statement()
        # Signed now, by a person's word: the change itself, hours later, needs no token.
        fields = change.proven(await sign_log(old, said), await sign_log(new, said))
        planned = {"role": role, "from_index": index, "kid": new.kid, "fields": fields}
        txn = Txn().set_meta(PLANNED, json.dumps(planned))
        detail = {"who": who, "new": new.public.text, "from_index": index}
        txn.record("site", "event", {"ev": "key_change", "obj": role, "now": "asked", "detail": detail})
        await self.ledger.commit(txn, urgent=True)

    async def _load(self) -> None:
        """What the ledger has planned, and whether it is too late for it."""
        rows = await self.ledger.read("SELECT value FROM meta WHERE key = ?", PLANNED)
        if not rows:
            self.planned, self.missed, self.waits = None, False, None
            return
        doc = json.loads(rows[0][0])
        role = str(doc["role"])
        new: LogSigner | None = self.keys.next_rec if role == "k_rec" else self.keys.next_log
        if new is None or new.kid != doc["kid"] or "fields" not in doc:
            # The key is lost, the old one goes on: a new one is made when a person asks again.
            self.planned, self.missed, self.waits = None, True, f"{NEXT[role]} with key {doc['kid']} is not here"
            return
        self._fields = doc["fields"]
        self.planned = KeyChange(
            self.site, self.ledger.epoch, role, self._old(role).public, new.public, int(doc["from_index"])
        )
        size, _ = await self.ledger.head()
        self.missed = size > self.planned.from_index - 1

    async def arm(self) -> None:
        """Let the change happen if the register has it; asked at the start and whenever a register came."""
        await self._load()
        change = self.planned
        if change is None:
            return
        why = lacking(self.register.entry, change, self._other(change.role))
        planned = None
        if why is None:
            planned = Planned(change.role, change.from_index, self._next(change.role), self._fields)
        took = await self.ledger.plan(planned)
        if planned is not None and took:
            # Before anything else is awaited: a checkpoint beyond the place has to be signed by the new key.
            self._later(planned)
            self.waits = None
            log.info("key_change_planned", role=change.role, from_index=change.from_index)
            return
        await self._load()
        if self.planned is None:
            return  # it has just happened
        self._later(None)
        self.waits = why if not self.missed else f"too late: the log is past {change.from_index}; ask again"
        log.warning("key_change_waits", role=change.role, why=self.waits)

    def _later(self, planned: Planned | None) -> None:
        if planned is None:
            self.checkpointer.later = None
        elif planned.role == "k_log":
            self.checkpointer.later = (planned.from_index, planned.key)

    def _written(self, records: list[Appended]) -> None:
        done = next((r for r in records if r.ty == "key_rotate"), None)
        if done is None or self.planned is None:
            return
        role = self.planned.role
        log.info("key_changed", role=role, index=done.idx, kid=self._next(role).kid)
        self.keys = promote(self.state_dir, self.keys, role)
        if role == "k_log":
            self.checkpointer.key, self.checkpointer.first = self.keys.log, self.planned.from_index
            self.checkpointer.later = None
        self.planned, self.waits, self.missed = None, None, False

    def _old(self, role: str) -> LogSigner:
        return self.ledger.key if role == "k_rec" else self.keys.log

    def _next(self, role: str) -> LogSigner:
        found: LogSigner | None = self.keys.next_rec if role == "k_rec" else self.keys.next_log
        if found is None:
            raise AgentError(f"{self.state_dir / NEXT[role]}: no such key")
        return found

    def _other(self, role: str) -> str:
        return (self.keys.log if role == "k_rec" else self.ledger.key).public.text


def lacking(entry: RegisteredSite | None, change: KeyChange, other: str) -> str | None:
    """What the register lacks for a change; ``None`` where it may happen.

    Args:
        entry: what the register says of the site.
        change: the change.
        other: the key of the other role, which stays.
    """

    def of_role(item: Epoch) -> tuple[str, str]:
        return (item.k_rec, item.k_log) if change.role == "k_rec" else (item.k_log, item.k_rec)

    mine = [item for item in entry.epochs if item.epoch == change.epoch] if entry is not None else []
    new = [item for item in mine if of_role(item)[0] == change.new.text]
    if not new:
        return "the register does not have the new key yet"
    if [item.from_index for item in new] != [change.from_index]:
        seen = ", ".join(str(item.from_index) for item in new)
        return f"the register has the new key from {seen} on, expected from {change.from_index} on"
    if of_role(new[0])[1] != other:
        return "the register's entry of the new key names another key beside it than the one that stays"
    if new[0].to_index is not None:
        return f"the register ends the new key at {new[0].to_index}"
    old = [item for item in mine if of_role(item)[0] == change.old.text]
    if not any(item.to_index is None or item.to_index >= change.from_index - 1 for item in old):
        return f"the register ends the old key before {change.from_index - 1}"
    return None
