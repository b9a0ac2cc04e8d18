"""The registrar's signed register as this agent holds it: only rising versions, kept in the ledger."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping

import structlog

from agent.clock import TrustedTime
from agent.ledger import Ledger, Txn
from wire.errors import WireError
from wire.keys import VerifyKey
from wire.notes import NoteKey
from wire.policy import Policy, parse_policy
from wire.registry import KeysDocument, RegisteredSite, open_keys

log = structlog.get_logger()


class Register:
    """Who may order, who witnesses, what is reserved.

    Args:
        site: id of this site.
        registrar: the registrar's keys, from the site file.
        ledger: where it is kept.
        trusted: raised by the time the register was issued.
    """

    def __init__(self, site: str, registrar: Mapping[str, VerifyKey], ledger: Ledger, trusted: TrustedTime) -> None:
        self._site = site
        self._registrar = dict(registrar)
        self._ledger = ledger
        self._trusted = trusted
        self.document: KeysDocument | None = None
        self.policy: Policy | None = None
        self.changed: Callable[[], Awaitable[None]] | None = None
        """Called after a newer register was taken."""

    @property
    def version(self) -> int | None:
        """Version held, ``None`` before the first."""
        return self.document.version if self.document else None

    def log_keys(self, epoch: str) -> list[NoteKey]:
        """Keys that may sign checkpoints of an epoch of this site."""
        return self.document.log_keys(self._site, epoch) if self.document else []

    @property
    def entry(self) -> RegisteredSite | None:
        """What the register says of this site."""
        return self.document.site(self._site) if self.document else None

    def load(self) -> None:
        """Take the register kept by an earlier run."""
        stored = self._ledger.meta("keys")
        if stored is None:
            return
        try:
            document, _ = open_keys(base64.b64decode(stored), self._registrar)
        except WireError as error:
            log.error("stored_register_refused", error=str(error))
            return
        self._hold(document)

    async def take(self, raw: bytes) -> None:
        """Take a register from topic ``keys``.

        Raises:
            WireError: not signed by the registrar, or no register.
            LedgerError: it could not be kept; the one held stays.
        """
        document, _ = open_keys(raw, self._registrar)
        if self.document is not None and document.version <= self.document.version:
            if document.version < self.document.version:
                log.warning("register_older", version=document.version, have=self.document.version)
            return
        txn = Txn().set_meta("keys", base64.b64encode(raw).decode())
        txn.record("site", "event", {"ev": "register", "obj": "keys", "now": str(document.version)})
        await self._ledger.commit(txn, urgent=True)
        self._hold(document)
        self._trusted.raise_to(document.issued_at)
        log.info("register_taken", version=document.version, issuers=len(document.issuers))
        if self.changed is not None:
            await self.changed()

    def _hold(self, document: KeysDocument) -> None:
        self.document = document
        self.policy = parse_policy(document.policy) if document.policy is not None else None
