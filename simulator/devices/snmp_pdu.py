"""A rack PDU's SNMP agent on a UDP port, for any PDU profile: GET, GETNEXT, GETBULK and SET over v1 and v2c.

The tree is made from the profile, so what the driver scales down the agent scales up; the numbers come from a
:class:`PduModel`, which the plant owns. Without power the agent is silent, as a real one is. Version 3 is not spoken.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from fractions import Fraction
from hmac import compare_digest
from typing import Any, Protocol

import structlog
from pyasn1.codec.ber import decoder, encoder
from pyasn1.error import PyAsn1Error
from pyasn1.type import univ
from pysnmp.error import PySnmpError
from pysnmp.proto import api, rfc1902, rfc1905

from drivers.snmp.profile import Command, Measure, Outlets, PduProfile

log = structlog.get_logger(__name__)

Arcs = tuple[int, ...]
Getter = Callable[[], int | str | None]
Setter = Callable[[int], bool]

_LONGEST_REQUEST_BYTES = 2048
_MOST_VALUES = 64
"""Values in one question or one GETBULK answer: keeps answers within one Ethernet frame, roughly as real agents do."""
_TOO_BIG, _NO_SUCH_NAME, _BAD_VALUE, _NO_ACCESS, _WRONG_TYPE, _WRONG_VALUE, _NOT_WRITABLE = 1, 2, 3, 6, 7, 10, 17
_FOR_VERSION_1 = {_WRONG_TYPE: _BAD_VALUE, _WRONG_VALUE: _BAD_VALUE, _NO_ACCESS: _NO_SUCH_NAME, _NOT_WRITABLE: 2}


class PduModel(Protocol):
    """What the plant says of one PDU."""

    def powered(self) -> bool:
        """Whether its electronics have power; without it, it does not answer."""
        ...

    def power_w(self) -> float:
        """Active power of the whole PDU."""
        ...

    def energy_wh(self) -> float:
        """Energy counter of the whole PDU."""
        ...

    def voltage_v(self) -> float:
        """Voltage at its inlet, line to neutral."""
        ...

    def outlet_on(self, outlet: int) -> bool:
        """State of one outlet's relay, from 1."""
        ...

    def outlet_power_w(self, outlet: int) -> float:
        """Active power of one outlet."""
        ...

    def set_outlet(self, outlet: int, on: bool) -> None:
        """Command one outlet."""
        ...


class PduTree:
    """The agent's objects in lexicographic order: what each says and, where it can be set, what setting does."""

    def __init__(
        self, profile: PduProfile, model: PduModel, outlets: int, serial_number: str, power_factor: float
    ) -> None:
        self._getters: dict[Arcs, Getter] = {}
        self._setters: dict[Arcs, dict[int, Callable[[], None]]] = {}
        self._add("1.3.6.1.2.1.1.1.0", lambda: f"{profile.vendor} {profile.model}"[:120])
        self._add("1.3.6.1.2.1.1.2.0", lambda: f"oid:{profile.enterprise}.1")
        self._add("1.3.6.1.2.1.1.5.0", lambda: f"pdu-{serial_number.lower()}")
        if profile.model_name is not None:
            self._add(profile.model_name.at(), profile.id.upper)
        device = _device_values(model, serial_number, power_factor)
        for point, measure in profile.points.items():
            if point in device:
                self._add_measure(measure, device[point], None)
        if profile.outlets is not None:
            self._add_outlets(profile.outlets, model, min(outlets, profile.outlets.maximum), power_factor)
        self._order = sorted(self._getters)

    def get(self, arcs: Arcs) -> int | str | None:
        """Value of one object; ``None`` where there is none."""
        getter = self._getters.get(arcs)
        return None if getter is None else getter()

    def after(self, arcs: Arcs) -> tuple[Arcs, int | str] | None:
        """The next object with a value, or ``None`` at the end."""
        for found in self._order[bisect_right(self._order, arcs) :]:
            value = self._getters[found]()
            if value is not None:
                return found, value
        return None

    def setter(self, arcs: Arcs) -> Mapping[int, Callable[[], None]] | None:
        """Values that may be written and what each does; ``None`` where the object cannot be written."""
        return self._setters.get(arcs)

    def _add(self, oid: str, getter: Getter) -> None:
        self._getters[tuple(map(int, oid.split(".")))] = getter

    def _add_measure(self, measure: Measure, value: Callable[[], float | str | None], outlet: int | None) -> None:
        columns = iter(measure.columns(outlet))
        digits = _digits(measure)
        self._add(next(columns), lambda: _raw(measure, value(), digits))
        if measure.decimals is not None:
            self._add(next(columns), lambda: digits)
        if measure.available is not None:
            self._add(next(columns), lambda: 1)

    def _add_outlets(self, described: Outlets, model: PduModel, outlets: int, power_factor: float) -> None:
        if described.count is not None:
            self._add(described.count.at(), lambda: outlets)
        for n in range(1, outlets + 1):
            self._add_outlet(described, model, n, power_factor)

    def _add_outlet(self, described: Outlets, model: PduModel, n: int, power_factor: float) -> None:
        state, pending = described.state, described.pending
        if state is not None:
            self._add(state.at(n), lambda: state.on[0] if model.outlet_on(n) else state.off[0])
        if pending is not None:
            self._add(pending.at(n), lambda: pending.off[0])
        if described.power_w is not None:
            self._add_measure(described.power_w, lambda: model.outlet_power_w(n), n)
        if described.current_a is not None:
            self._add_measure(
                described.current_a, lambda: _current(model.outlet_power_w(n), model.voltage_v(), power_factor), n
            )
        for command, level in ((described.open, False), (described.close, True)):
            if command is not None:
                self._add_command(command, described, model, n, level)

    def _add_command(self, command: Command, described: Outlets, model: PduModel, n: int, level: bool) -> None:
        arcs = tuple(map(int, command.at(n).split(".")))
        self._setters.setdefault(arcs, {})[command.value] = lambda: model.set_outlet(n, level)
        one_object = described.open is not None and described.close is not None and (
            described.open.oid == described.close.oid
        )  # fmt: skip
        if one_object and described.open is not None and described.close is not None:
            off, on = described.open.value, described.close.value
            self._getters[arcs] = lambda: on if model.outlet_on(n) else off
        else:
            self._getters[arcs] = lambda: -1  # a delay object: no command is pending


def _device_values(
    model: PduModel, serial_number: str, power_factor: float
) -> dict[str, Callable[[], float | str | None]]:
    return {
        "power_w": model.power_w,
        "power_l1_w": model.power_w,
        "power_apparent_va": lambda: model.power_w() / power_factor,
        "power_factor": lambda: power_factor,
        "energy_import_wh": model.energy_wh,
        "voltage_l1_n_v": model.voltage_v,
        "current_l1_a": lambda: _current(model.power_w(), model.voltage_v(), power_factor),
        "frequency_hz": lambda: 50.0,
        "serial_number": lambda: serial_number,
    }


def _current(power_w: float, voltage_v: float, power_factor: float) -> float:
    return power_w / (voltage_v * power_factor) if voltage_v > 0 else 0.0


def _digits(measure: Measure) -> int:
    """Decimal digits that the agent gives a sensor: as many as a real unit shows, by its kind."""
    return 0 if measure.decimals is None else {".1": 3, "23": 1, ".7": 2}.get(measure.instance[-2:], 0)


def _raw(measure: Measure, value: float | str | None, digits: int) -> int | str | None:
    if value is None or isinstance(value, str):
        return value
    if not math.isfinite(value):
        return measure.sentinels[0] if measure.sentinels else None
    exact = Fraction(value) / measure.factor * 10**digits
    # A counter shows only what is full; the rest is rounded to the nearest.
    whole: int = math.floor(exact) if measure.resettable else round(exact)
    return whole % 2**32


class SnmpPduAgent(asyncio.DatagramProtocol):
    """One PDU's agent. ``await start()``, then ``port``; ``stop()`` closes it.

    Raises:
        ValueError: the communities are equal or empty, or there are no outlets.
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
    ) -> None:
        if not read_community or not write_community or read_community == write_community:
            raise ValueError("SNMP agent: two different communities expected, one to read and one to write")
        if outlets < 1 or not 0 < power_factor <= 1:
            raise ValueError(f"SNMP agent: {outlets} outlets, power factor {power_factor}; expected >= 1 and (0, 1]")
        self.tree = PduTree(profile, model, outlets, serial_number, power_factor)
        self._model = model
        self._read = read_community.encode()
        self._write = write_community.encode()
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
            answer = self.answer(data)
        except (PyAsn1Error, PySnmpError, ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
            # pyasn1 raises much of this on hostile bytes; the agent of a real PDU drops them too.
            self.malformed += 1
            log.debug("snmp_datagram_malformed", error=type(error).__name__, size=len(data))
            return
        if answer is not None:
            self._transport.sendto(answer, addr)

    def answer(self, data: bytes) -> bytes | None:
        """The answer to one message, or ``None`` for silence.

        Raises:
            Exception: of pyasn1 or pysnmp, where the bytes are no SNMP message.
        """
        if len(data) > _LONGEST_REQUEST_BYTES:
            raise ValueError("message too long")
        version = int(api.decodeMessageVersion(data))
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
