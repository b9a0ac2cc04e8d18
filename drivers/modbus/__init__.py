"""Modbus over TCP, TLS, RTU and RTU-over-TCP: one worker per link, meters that are only read, relays with read-back.

Here live addresses (``url``), protocol data units (``pdu``), framing (``mbap``, ``rtu``), the connection (``stream``,
``transport``, ``connection``), the scheduler, the link and its worker, and the devices on it. What a device model looks
like is data and lives in :mod:`drivers.profiles`; when to switch anything is decided elsewhere.
"""

from drivers.modbus.device import ForbiddenFunction, LinkDevice
from drivers.modbus.events import LinkEvent
from drivers.modbus.link import ModbusLink
from drivers.modbus.meter import MeterDevice
from drivers.modbus.relay import InputRef, RelayDevice, RelayImage, RelaySwitch
from drivers.modbus.scheduler import Klass
from drivers.modbus.stats import LinkStats
from drivers.modbus.subscription import Subscription
from drivers.modbus.tls import TlsFiles
from drivers.modbus.url import LinkUrl, parse_url

__all__ = [
    "ForbiddenFunction",
    "InputRef",
    "Klass",
    "LinkDevice",
    "LinkEvent",
    "LinkStats",
    "LinkUrl",
    "MeterDevice",
    "ModbusLink",
    "RelayDevice",
    "RelayImage",
    "RelaySwitch",
    "Subscription",
    "TlsFiles",
    "parse_url",
]
