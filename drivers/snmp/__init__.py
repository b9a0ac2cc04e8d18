"""Rack PDUs over SNMP v1, v2c and v3.

Here live: the profile of a PDU model (``profile``), what its answers mean (``decode``; ``entity`` for the
ENTITY-SENSOR-MIB), secrets (``credentials``), the SNMP exchange on pysnmp (``session``), one device (``pdu``:
``SnmpPdu``), one of its outlets as a switch (``outlet``) and the look at an unknown address (``probe``). Nothing here
decides when to switch or in which order: that is the agent's.

This face names only what is light: ``drivers.snmp.pdu`` and ``drivers.snmp.session`` bring pysnmp with them (35 MB),
which a site without PDUs never loads.
"""

from __future__ import annotations

from drivers.snmp.credentials import Community, Credentials, User, credentials_from_environment, credentials_from_text
from drivers.snmp.profile import PduProfile, load_pdu_profile, load_pdu_profiles

__all__ = [
    "Community",
    "Credentials",
    "PduProfile",
    "User",
    "credentials_from_environment",
    "credentials_from_text",
    "load_pdu_profile",
    "load_pdu_profiles",
]
