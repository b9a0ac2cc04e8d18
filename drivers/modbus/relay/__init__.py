"""Relay boards, remote I/O and breaker controllers on a Modbus link, and the switches that their outputs drive.

Here live: what a board shows (``image``), the board and its writes (``device``), the command interface of breakers
(``commands``), the settings on which its outputs depend (``safety``), and one switch (``switch``).

Nothing is ever toggled, software never makes a pulse out of two writes, no setting of a device is written. Every write
is followed by reading back; the position of a switch comes from its auxiliary contacts alone.
"""

from __future__ import annotations

from drivers.modbus.relay.device import RelayDevice
from drivers.modbus.relay.image import RelayImage
from drivers.modbus.relay.safety import SafeState, SafeStatus
from drivers.modbus.relay.switch import PULSED, READY_POINTS, InputRef, RelaySwitch, position_of
from drivers.profiles.switching import Actuator

__all__ = [
    "PULSED",
    "READY_POINTS",
    "Actuator",
    "InputRef",
    "RelayDevice",
    "RelayImage",
    "RelaySwitch",
    "SafeState",
    "SafeStatus",
    "position_of",
]
