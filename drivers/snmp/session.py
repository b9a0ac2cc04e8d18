"""The SNMP exchange, on pysnmp: GET, GETBULK/GETNEXT and SET of integers, each within a deadline.

One :class:`SnmpSession` serves all devices of a process: pysnmp's engine is heavy (its own MIBs, its own tables), and
all devices share its one UDP socket. Whoever makes the session closes it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyasn1.error import PyAsn1Error
from pyasn1.type import univ
from pysnmp.entity.rfc3413 import cmdgen
from pysnmp.error import PySnmpError
from pysnmp.hlapi.v3arch import asyncio as hlapi
from pysnmp.hlapi.v3arch.asyncio.lcd import CommandGeneratorLcdConfigurator
from pysnmp.proto import errind, rfc1902

from drivers.errors import BadAnswer, BadFrame, NoAnswer, NoConnection, Refused
from drivers.snmp.credentials import Access, Community, User
from drivers.snmp.decode import Raw

_AUTH = {
    "md5": hlapi.USM_AUTH_HMAC96_MD5,
    "sha": hlapi.USM_AUTH_HMAC96_SHA,
    "sha224": hlapi.USM_AUTH_HMAC128_SHA224,
    "sha256": hlapi.USM_AUTH_HMAC192_SHA256,
    "sha384": hlapi.USM_AUTH_HMAC256_SHA384,
    "sha512": hlapi.USM_AUTH_HMAC384_SHA512,
}
_PRIV = {
    "des": hlapi.USM_PRIV_CBC56_DES,
    "aes": hlapi.USM_PRIV_CFB128_AES,
    "aes192": hlapi.USM_PRIV_CFB192_AES,
    "aes256": hlapi.USM_PRIV_CFB256_AES,
}
_TARGETS = CommandGeneratorLcdConfigurator()
"""Writes targets into an engine's tables; holds nothing itself."""
_REFUSALS = (
    errind.AuthenticationError,
    errind.AuthenticationFailure,
    errind.DecryptionError,
    errind.NoAccessEntry,
    errind.NoGroupName,
    errind.NoSuchContext,
    errind.UnknownSecurityName,
    errind.UnknownUserName,
    errind.UnsupportedSecurityLevel,
    errind.WrongDigest,
)
_TOO_BIG = 1
_NO_SUCH_NAME = 2
_GEN_ERR = 5
_UNDO_FAILED = 15
_LARGEST_GET = 20
"""Values in one GET: about 700 bytes both ways, below one Ethernet frame."""
_LARGEST_BULK = 40
"""Values in one GETBULK answer, for the same reason: many PDUs drop fragmented answers."""
_LONGEST_TEXT_BYTES = 1024
_ROW = re.compile(r"[0-9]{1,10}")


class ForbiddenWrite(Refused):
    """A SET that is on no list of commands; a programming error, not a device's. Nothing left this machine."""


class EffectUnknown(NoAnswer):
    """A SET was answered with an error after which the device may have carried it out partly (RFC 3416 4.2.5)."""


@dataclass(slots=True, eq=False)
class SnmpPeer:
    """One device under one secret. Its methods raise the errors of :mod:`drivers.errors`, nothing else."""

    host: str
    port: int
    access: Access = field(repr=False)
    timeout_s: float
    """For pysnmp's own clean-up only; callers bound each call by ``asyncio.timeout``."""
    _engine: hlapi.SnmpEngine = field(repr=False)
    _auth: hlapi.CommunityData | hlapi.UsmUserData = field(repr=False)
    writable: frozenset[tuple[str, int]] = field(repr=False, default=frozenset())
    """Every object and value that may ever be written through this peer."""
    _target: hlapi.UdpTransportTarget | None = field(repr=False, default=None)
    """The resolved address; looked up again after a time-out, so that a moved name is found."""

    @property
    def _v1(self) -> bool:
        return isinstance(self.access, Community) and self.access.version == "1"

    async def get(self, oids: Sequence[str]) -> dict[str, Raw]:
        """Values by OID; ``None`` where the device has no such object or row.

        Raises:
            DriverError: no connection, no answer, refused, or an answer that does not belong to the question.
        """
        found: dict[str, Raw] = {}
        queue = [list(oids[i : i + _LARGEST_GET]) for i in range(0, len(oids), _LARGEST_GET)]
        while queue:
            part = queue.pop(0)
            status, index, pairs = await self._exchange(
                cmdgen.GetCommandGenerator(), [(oid, rfc1902.Null("")) for oid in part]
            )
            if status == _TOO_BIG and len(part) > 1:
                queue[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
            elif status == _NO_SUCH_NAME and 1 <= index <= len(part):
                # Version 1 refuses the whole question for one missing value: ask again without it.
                found[part.pop(index - 1)] = None
                if part:
                    queue.insert(0, part)
            elif status:
                raise Refused(f"{self}: GET refused, error status {status} for {part[max(index, 1) - 1]}")
            else:
                if [oid for oid, _ in pairs] != part:
                    raise BadFrame(f"{self}: the answer names other objects than were asked for")
                found.update(pairs)
        return found

    async def table(self, columns: Sequence[str], rows_limit: int) -> dict[str, dict[int, Raw]]:
        """Columns whose rows are numbered by one last integer: ``{column: {row: value}}``.

        A column that the device does not have is empty. The walk ends after ``rows_limit`` rows, so that a device
        that answers without end is bounded.

        Raises:
            DriverError: as :meth:`get`.
        """
        found: dict[str, dict[int, Raw]] = {column: {} for column in columns}
        cursor = {column: column for column in columns}
        repetitions = max(1, min(rows_limit + 1, _LARGEST_BULK // max(1, len(columns))))
        while cursor:
            asked = list(cursor)
            pairs = await self._next([cursor[column] for column in asked], repetitions)
            if not pairs:
                break
            for position, (oid, value) in enumerate(pairs):
                column = asked[position % len(asked)]
                if column not in cursor:
                    continue
                row = oid.removeprefix(f"{column}.")
                if value is None or row == oid or not _ROW.fullmatch(row) or len(found[column]) >= rows_limit:
                    del cursor[column]
                    continue
                if found[column] and int(row) <= next(reversed(found[column])):
                    raise BadFrame(f"{self}: the table under {column} does not rise; expected rows after each other")
                found[column][int(row)] = value
                cursor[column] = oid
        return found

    async def _next(self, oids: list[str], repetitions: int) -> list[tuple[str, Raw]]:
        asked = [(oid, rfc1902.Null("")) for oid in oids]
        if self._v1:
            status, _, pairs = await self._exchange(
                cmdgen.NextCommandGeneratorSingleRun(), [(oid, rfc1902.Null("")) for oid in oids]
            )
            if status == _NO_SUCH_NAME and len(oids) > 1:
                # One column is at its end: version 1 then tells nothing of the others.
                pairs = [pair for oid in oids for pair in await self._next([oid], 1) or [(oid, None)]]
                status = 0
            if status == _NO_SUCH_NAME:
                return []
        else:
            bulk = cmdgen.BulkCommandGeneratorSingleRun()
            status, _, pairs = await self._exchange(bulk, asked, 0, repetitions)
        if status:
            raise Refused(f"{self}: table refused, error status {status}")
        return pairs

    async def set_integer(self, oid: str, value: int) -> None:
        """SET one integer, sent once.

        Raises:
            ForbiddenWrite: object and value are not among ``writable``; nothing was sent.
            NoAnswer: unknown whether it was carried out.
            DriverError: as :meth:`get`; then it was not.
        """
        if (oid, value) not in self.writable:
            raise ForbiddenWrite(f"{self}: SET {oid} = {value} is on no list of commands; nothing was sent")
        status, _, _ = await self._exchange(cmdgen.SetCommandGenerator(), [(oid, rfc1902.Integer32(value))])
        if status in (_GEN_ERR, _UNDO_FAILED):
            raise EffectUnknown(f"{self}: SET {oid} answered with error status {status}; the effect is unknown")
        if status:
            raise Refused(f"{self}: SET {oid} refused, error status {status}")

    async def _exchange(
        self, generator: Any, pairs: Sequence[tuple[str, Any]], *bulk: int
    ) -> tuple[int, int, list[tuple[str, Raw]]]:
        target, self._target = self._target or await self._resolve(), None
        context = self.access.context if isinstance(self.access, User) else ""
        answered: asyncio.Future[tuple[Any, Any, Any, Any]] = asyncio.get_running_loop().create_future()

        def done(_engine: Any, _handle: Any, indication: Any, status: Any, index: Any, values: Any, _: Any) -> None:
            if not answered.done():  # the caller's deadline may have passed
                answered.set_result((indication, status, index, values))

        try:
            # One layer below pysnmp.hlapi: that one looks every OID up in MIBs, which costs time and, where its MIB
            # compiler is installed, would let it fetch MIBs from the Internet.
            name, _ = _TARGETS.configure(self._engine, self._auth, target, context)
            objects = [(rfc1902.ObjectName(oid), value) for oid, value in pairs]
            generator.send_varbinds(self._engine, name, None, context, *bulk, objects, done)
            indication, status, index, values = await answered
            if indication:
                raise self._error(indication)
            self._target = target
            return int(status), int(index), [(str(oid), _raw(value)) for oid, value in values]
        except (PySnmpError, PyAsn1Error, ValueError) as error:
            # The text of pysnmp's errors can hold the message, and with it the community: only the class is told.
            raise BadAnswer(f"{self}: the exchange failed inside the SNMP library ({type(error).__name__})") from None

    async def _resolve(self) -> hlapi.UdpTransportTarget:
        cleanup_s = self.timeout_s + 1.0  # pysnmp forgets the question only after the caller has given up
        kind = hlapi.Udp6TransportTarget if ":" in self.host else hlapi.UdpTransportTarget
        try:
            return await kind.create((self.host, self.port), timeout=cleanup_s, retries=0)
        except (PySnmpError, OSError, UnicodeError) as error:
            raise NoConnection(f"{self}: the address cannot be resolved; check the link's URL") from error

    def _error(self, indication: object) -> Exception:
        if isinstance(indication, errind.RequestTimedOut):
            return NoAnswer(f"{self}: no answer; check address, community or user, and the device's access list")
        name = type(indication).__name__
        if isinstance(indication, _REFUSALS):
            return Refused(f"{self}: the device refuses the user, its keys or its level ({name})")
        return BadAnswer(f"{self}: SNMP error {name}")

    def __str__(self) -> str:
        return f"snmp://{self.host}:{self.port}"


def _raw(value: object) -> Raw:
    # NoSuchObject, NoSuchInstance and EndOfMibView are all Null to ASN.1.
    if isinstance(value, univ.Null):
        return None
    if isinstance(value, univ.ObjectIdentifier):
        return str(value).encode("ascii")
    if isinstance(value, univ.OctetString):
        return bytes(value.asOctets())[:_LONGEST_TEXT_BYTES]
    if isinstance(value, univ.Integer):
        return int(value)
    raise BadAnswer(f"SNMP type {type(value).__name__}; expected an integer, a string or an object identifier")


class SnmpSession:
    """pysnmp's engines of one event loop.

    There is one engine, and one more for each v3 user name that occurs with several keys: pysnmp knows a user by the
    name alone, and two devices with equal names and different keys would lock each other out.
    """

    def __init__(self) -> None:
        self._engines: list[tuple[hlapi.SnmpEngine, dict[str, User]]] = []

    def peer(
        self,
        host: str,
        port: int,
        access: Access,
        timeout_s: float,
        writable: frozenset[tuple[str, int]] = frozenset(),
    ) -> SnmpPeer:
        """A device to talk to; nothing is sent yet. The first peer of a session takes a moment: make it at start.

        ``writable`` lists every object and value that may be written; without it the peer only reads.
        """
        if isinstance(access, Community):
            auth = hlapi.CommunityData(access.name, mpModel=0 if access.version == "1" else 1)
        else:
            auth = hlapi.UsmUserData(
                access.user,
                authKey=access.auth_key,
                privKey=access.priv_key,
                authProtocol=_AUTH[access.auth] if access.auth_key else None,
                privProtocol=_PRIV[access.priv] if access.priv_key else None,
            )
        return SnmpPeer(host, port, access, timeout_s, self._engine_for(access), auth, writable)

    def _engine_for(self, access: Access) -> hlapi.SnmpEngine:
        for engine, users in self._engines:
            if isinstance(access, Community) or users.setdefault(access.user, access) == access:
                return engine
        users = {access.user: access} if isinstance(access, User) else {}
        self._engines.append((hlapi.SnmpEngine(), users))
        return self._engines[-1][0]

    async def aclose(self) -> None:
        """Close sockets and timers. Peers of this session cannot be used afterwards."""
        for engine, _ in self._engines:
            engine.close_dispatcher()
        self._engines.clear()
        await asyncio.sleep(0)  # lets the transports run their own closing

    async def __aenter__(self) -> SnmpSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
