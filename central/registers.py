"""The register in force: the newest one that the registrar signed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.errors import CentralError
from central.store.database import Database
from central.store.evidence import RecordKeys, StreamPlace, rejudge, reverify
from central.store.schema import registers
from wire.errors import BadKey, WireError
from wire.keys import VerifyKey
from wire.notes import NoteKey
from wire.policy import parse_policy
from wire.registry import KeysDocument, RegisteredSite, open_keys


class OlderRegister(CentralError):
    """A register that is not newer than the one in force."""


def registrar_keys(texts: Sequence[str]) -> dict[str, VerifyKey]:
    """Keys of the registrar from the settings.

    Raises:
        CentralError: one is not an Ed25519 public key in base64.
    """
    try:
        keys = [VerifyKey.from_text(text) for text in texts]
    except BadKey as error:
        raise CentralError(
            f"registrar_keys: {error}; expected base64 of 32 bytes, as 'tizgin registrar' prints"
        ) from None
    return {key.kid: key for key in keys}


class RegisterBook:
    """Takes only rising versions; every one is kept."""

    def __init__(self, database: Database, registrar: dict[str, VerifyKey]) -> None:
        self.document: KeysDocument | None = None
        self.envelope: bytes | None = None
        self._database = database
        self._registrar = registrar
        self._record_keys: dict[str, RecordKeys] = {}
        self._judged: dict[str, set[str]] = {}
        """Site → record keys by which everything stored has been judged in this run."""

    async def load(self) -> None:
        """Take the newest stored register, checked again."""
        row = await self._database.read(
            lambda c: c.execute(sa.select(registers.c.envelope).order_by(registers.c.version.desc()).limit(1)).first()
        )
        if row is not None:
            raw = bytes(row[0])
            try:
                self._set(open_keys(raw, self._registrar)[0], raw)
            except WireError as error:
                raise CentralError(f"the stored register: {error}; were registrar_keys changed?") from None

    def record_keys(self, site: str) -> RecordKeys:
        """Epoch → kid → record key of a site."""
        if self.document is None:
            return {}
        if site not in self._record_keys:
            self._record_keys[site] = self.document.record_keys(site)
        return self._record_keys[site]

    def log_keys(self, site: str, epoch: str) -> list[NoteKey]:
        """Keys that may sign checkpoints of that log."""
        return [] if self.document is None else self.document.log_keys(site, epoch)

    async def accept(self, raw: bytes, now_ms: int) -> bool:
        """Take a register; false where it is the one in force, byte for byte.

        Raises:
            WireError: not signed by the registrar, or not a register.
            OlderRegister: its version does not rise.
        """
        document, _ = open_keys(raw, self._registrar)
        if self.document is not None and document.version <= self.document.version:
            if raw == self.envelope:
                return False
            raise OlderRegister(
                f"register version {document.version}, in force is {self.document.version}: only a higher one is taken"
            )
        await self._database.write(partial(_keep, version=document.version, raw=raw, now_ms=now_ms))
        self._set(document, raw)
        return True

    def _set(self, document: KeysDocument, raw: bytes) -> None:
        self.document, self.envelope = document, raw
        self._record_keys = {}
        for site, kids in self._judged.items():
            kids.intersection_update(_kids(self.record_keys(site)))

    async def reverify(self, sites: Sequence[str]) -> int:
        """Judge stored records that came before their key was known, whether their epoch was known or not."""
        total = 0
        for site in sites:
            await self._rejudge(site)
            keys = self.record_keys(site)
            while keys:
                done = await self._database.write(partial(reverify, site=site, keys=keys))
                total += done
                if done == 0:
                    break
        return total

    async def _rejudge(self, site: str) -> None:
        keys = self.record_keys(site)
        kids = _kids(keys)
        new = kids - self._judged.get(site, set())
        place: StreamPlace | None = ("", "", -1) if new else None
        while place is not None:
            piece = partial(rejudge, site=site, keys=keys, kids=new, after=place)
            place = await self._database.write(piece)
        # Only now: a pass that the database broke off is made again.
        self._judged[site] = kids & _kids(self.record_keys(site))


def _keep(connection: Connection, version: int, raw: bytes, now_ms: int) -> None:
    """Store a register; one that is stored already, since the database died over its commit, is let be.

    Raises:
        OlderRegister: a newer one is stored, or another of this version.
    """
    newest = connection.execute(sa.select(registers).order_by(registers.c.version.desc()).limit(1)).first()
    if newest is None or newest.version < version:
        row = {"version": version, "envelope": raw, "received_at": now_ms}
        connection.execute(sa.insert(registers), [row])
    elif (newest.version, bytes(newest.envelope)) != (version, raw):
        raise OlderRegister(
            f"register version {version}, stored is {newest.version} with other bytes: only a higher one is taken"
        )


def _kids(keys: RecordKeys) -> set[str]:
    return {kid for of_epoch in keys.values() for kid in of_epoch}


def stored_site(connection: Connection, site_id: str, registrar: dict[str, VerifyKey]) -> RegisteredSite:
    """What the newest stored register says of a site.

    Raises:
        CentralError: no register, or none that knows the site.
    """
    return stored_register(connection, site_id, registrar)[1]


def stored_register(
    connection: Connection, site_id: str, registrar: dict[str, VerifyKey]
) -> tuple[bytes, RegisteredSite, list[NoteKey]]:
    """The newest stored register, byte for byte, what it says of a site, and the witnesses of its policy.

    Raises:
        CentralError: no register, or none that knows the site.
    """
    raw = connection.execute(sa.select(registers.c.envelope).order_by(registers.c.version.desc()).limit(1)).scalar()
    if raw is None:
        raise CentralError("no register is stored: put the registrar's keys.json to /api/v1/keys first")
    try:
        document, _ = open_keys(bytes(raw), registrar)
    except WireError as error:
        raise CentralError(f"the stored register: {error}; were registrar_keys changed?") from None
    site = document.site(site_id)
    if site is None:
        raise CentralError(f"site {site_id!r} is not in register version {document.version}")
    return bytes(raw), site, parse_policy(document.policy).keys if document.policy is not None else []
