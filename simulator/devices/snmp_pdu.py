"""A rack PDU's SNMP agent on a UDP port, for any PDU profile: GET, GETNEXT, GETBULK and SET over v1, v2c and v3.

The tree is made from the profile, so what the driver scales down the agent scales up; the numbers come from a
:class:`PduModel`, which the plant owns. Without power the agent is silent, as a real one is. Version 3 costs an engine
of pysnmp and is spoken only where users are given (:mod:`simulator.devices.snmp_v3`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Any

import structlog
from pyasn1.codec.ber import decoder, encoder
from pyasn1.error import PyAsn1Error
from pyasn1.type import univ
from pysnmp.error import PySnmpError
from pysnmp.proto import api, rfc1902, rfc1905

from drivers.snmp.credentials import User
from drivers.snmp.profile import PduProfile
from simulator.devices.snmp_tree import Arcs, PduModel, PduTree
from simulator.devices.snmp_v3 import V3Face

log = structlog.get_logger(__name__)

_LONGEST_REQUEST_BYTES = 2048
_MOST_VALUES = 64
"""Values in one question or one GETBULK answer: keeps answers within one Ethernet frame, roughly as real agents do."""
_VERSION_3 = 3
_TOO_BIG, _NO_SUCH_NAME, _BAD_VALUE, _NO_ACCESS, _WRONG_TYPE, _WRONG_VALUE, _NOT_WRITABLE = 1, 2, 3, 6, 7, 10, 17
_FOR_VERSION_1 = {_WRONG_TYPE: _BAD_VALUE, _WRONG_VALUE: _BAD_VALUE, _NO_ACCESS: _NO_SUCH_NAME, _NOT_WRITABLE: 2}


class SnmpPduAgent(asyncio.DatagramProtocol):
    """One PDU's agent. ``await start()``, then ``port``; ``stop()`` closes it.

    Raises:
        ValueError: the communities are equal or empty, or there are no outlets.

    ``users`` of version 3, each with whether it may write.
    """

    def __init__(
        self,
        profile: PduProfile,
        model: PduModel,
        outlets: int,
        *,
        read_community: str = "public",
        write_community: str = "private",
        serial_number: str = "SIM0001",
        power_factor: float = 0.97,
        users: Mapping[User, bool] | None = None,
    ) -> None:
        if not read_community or not write_community or read_community == write_community:
            raise ValueError("SNMP agent: two different communities expected, one to read and one to write")
        if outlets < 1 or not 0 < power_factor <= 1:
            raise ValueError(f"SNMP agent: {outlets} outlets, power factor {power_factor}; expected >= 1 and (0, 1]")
        self.tree = PduTree(profile, model, outlets, serial_number, power_factor)
        self._model = model
        self._read = read_community.encode()
        self._write = write_community.encode()
        self._v3 = (
            None if not users else V3Face(users, lambda pdu, may: self._handle(api.PROTOCOL_MODULES[1], pdu, 1, may))
        )
        self._transport: asyncio.DatagramTransport | None = None
        self.malformed = 0
        """Datagrams that were no SNMP message."""
        self.denied = 0
        """Messages with a wrong community."""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen.

        Raises:
            OSError: the port cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))

    @property
    def port(self) -> int:
        """The UDP port it listens on.

        Raises:
            RuntimeError: it is not started.
        """
        if self._transport is None:
            raise RuntimeError("SNMP agent: not started")
        return int(self._transport.get_extra_info("sockname")[1])

    def stop(self) -> None:
        """Close the socket; harmless when it is closed already."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Answer one datagram, or be silent."""
        if not self._model.powered() or self._transport is None:
            return
        try:
            answer = self.answer(data, (str(addr[0]), addr[1]))
        except (PyAsn1Error, PySnmpError, ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
            # pyasn1 raises much of this on hostile bytes; the agent of a real PDU drops them too.
            self.malformed += 1
            log.debug("snmp_datagram_malformed", error=type(error).__name__, size=len(data))
            return
        if answer is not None:
            self._transport.sendto(answer, addr)

    def answer(self, data: bytes, addr: tuple[str, int]) -> bytes | None:
        """The answer to one message, or ``None`` for silence.

        Raises:
            Exception: of pyasn1 or pysnmp, where the bytes are no SNMP message.
        """
        if len(data) > _LONGEST_REQUEST_BYTES:
            raise ValueError("message too long")
        version = int(api.decodeMessageVersion(data))
        if version == _VERSION_3 and self._v3 is not None:
            return self._v3.answer(data, addr)
        if version not in (0, 1):
            raise ValueError(f"version {version}")
        rfc = api.PROTOCOL_MODULES[version]
        message, rest = decoder.decode(data, asn1Spec=rfc.Message())
        if rest:
            raise ValueError("bytes after the message")
        community = bytes(rfc.apiMessage.get_community(message).asOctets())
        may_write = compare_digest(community, self._write)
        if not may_write and not compare_digest(community, self._read):
            self.denied += 1
            return None
        request = rfc.apiMessage.get_pdu(message)
        result = self._handle(rfc, request, version, may_write)
        if result is None:
            return None
        status, index, pairs = result
        reply = rfc.apiMessage.get_response(message)
        pdu = rfc.apiMessage.get_pdu(reply)
        if version == 0:
            status = _FOR_VERSION_1.get(status, status)
        if status:
            # On an error the question's values go back unchanged (RFC 3416 4.2.1).
            rfc.apiPDU.set_varbinds(pdu, _asked(rfc, request))
            rfc.apiPDU.set_error_status(pdu, status)
            rfc.apiPDU.set_error_index(pdu, index)
        else:
            rfc.apiPDU.set_varbinds(pdu, pairs)
        return bytes(encoder.encode(reply))

    def _handle(self, rfc: Any, pdu: Any, version: int, may_write: bool) -> tuple[int, int, list[Any]] | None:
        kind = pdu.tagSet
        asked = _asked(rfc, pdu)
        if len(asked) > _MOST_VALUES:
            return _TOO_BIG, 0, []
        if kind == rfc.SetRequestPDU.tagSet:
            return self._set(asked, may_write)
        arcs = [tuple(int(arc) for arc in name) for name, _ in asked]
        if kind == rfc.GetRequestPDU.tagSet:
            return _filled(version, asked, [self.tree.get(at) for at in arcs])
        if kind == rfc.GetNextRequestPDU.tagSet:
            found = [self.tree.after(at) for at in arcs]
            if version == 0 and None in found:
                return _NO_SUCH_NAME, found.index(None) + 1, []
            return 0, 0, [_pair(at, item) for at, item in zip(arcs, found, strict=True)]
        if version == 1 and kind == rfc.GetBulkRequestPDU.tagSet:
            once = max(0, min(int(rfc.apiBulkPDU.get_non_repeaters(pdu)), len(arcs)))
            return 0, 0, self._bulk(arcs, once, int(rfc.apiBulkPDU.get_max_repetitions(pdu)))
        return None

    def _bulk(self, arcs: list[Arcs], once: int, repetitions: int) -> list[Any]:
        pairs = [_pair(at, self.tree.after(at)) for at in arcs[:once]]
        cursor = arcs[once:]
        for _ in range(max(0, repetitions)):
            if not cursor or len(pairs) + len(cursor) > _MOST_VALUES:
                break
            found = [self.tree.after(at) for at in cursor]
            pairs.extend(_pair(at, item) for at, item in zip(cursor, found, strict=True))
            if all(item is None for item in found):
                break
            cursor = [at if item is None else item[0] for at, item in zip(cursor, found, strict=True)]
        return pairs

    def _set(self, asked: list[Any], may_write: bool) -> tuple[int, int, list[Any]]:
        """All or nothing: every value is checked before the first one takes effect."""
        effects: list[Callable[[], None]] = []
        for index, (name, value) in enumerate(asked, start=1):
            allowed = self.tree.setter(tuple(int(arc) for arc in name))
            if not may_write:
                return _NO_ACCESS, index, []
            if allowed is None:
                return _NOT_WRITABLE, index, []
            if not isinstance(value, univ.Integer):
                return _WRONG_TYPE, index, []
            if int(value) not in allowed:
                return _WRONG_VALUE, index, []
            effects.append(allowed[int(value)])
        for effect in effects:
            effect()
        return 0, 0, asked


def _asked(rfc: Any, pdu: Any) -> list[Any]:
    return list(rfc.apiPDU.get_varbinds(pdu))


def _filled(version: int, asked: list[Any], values: list[int | str | None]) -> tuple[int, int, list[Any]]:
    if version == 0 and None in values:
        return _NO_SUCH_NAME, values.index(None) + 1, []
    filled = [rfc1905.noSuchInstance if value is None else _typed(value) for value in values]
    return 0, 0, [(name, value) for (name, _), value in zip(asked, filled, strict=True)]


def _pair(at: Arcs, item: tuple[Arcs, int | str] | None) -> tuple[Any, Any]:
    if item is None:
        return rfc1902.ObjectName(at), rfc1905.endOfMibView
    return rfc1902.ObjectName(item[0]), _typed(item[1])


def _typed(value: int | str) -> Any:
    if isinstance(value, str):
        if value.startswith("oid:"):
            return rfc1902.ObjectIdentifier(value[4:])
        return rfc1902.OctetString(value.encode())
    return rfc1902.Integer32(value) if value < 2**31 else rfc1902.Gauge32(value)
