"""Both sides of SNMP in tests: a simulated PDU with its rack, our driver, and net-snmp's tools."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from pyasn1.codec.ber import encoder
from pysnmp.proto import api

from drivers.snmp import Community, Credentials, User, load_pdu_profile
from drivers.snmp.pdu import SnmpPdu
from drivers.snmp.session import SnmpSession
from simulator.devices.snmp_pdu import SnmpPduAgent

OUTLETS = 24
APC = load_pdu_profile("apc-rpdu2")
READ, WRITE = "tz-read", "tz-write"
ENTERPRISE = "1.3.6.1.4.1.318.1.1.26"
CONTROL = f"{ENTERPRISE}.9.2.4.1.5"
STATE = f"{ENTERPRISE}.9.2.3.1.5"


@dataclass
class Rack:
    """A PDU model with a constant load on each outlet."""

    on: dict[int, bool] = field(default_factory=lambda: dict.fromkeys(range(1, OUTLETS + 1), True))
    has_power: bool = True
    load_w: float = 3500.0
    stuck: bool = False

    def powered(self) -> bool:
        return self.has_power

    def power_w(self) -> float:
        return sum(self.outlet_power_w(n) for n in self.on)

    def energy_wh(self) -> float:
        return 1_951_699.0

    def voltage_v(self) -> float:
        return 231.0

    def outlet_on(self, outlet: int) -> bool:
        return self.on[outlet]

    def outlet_power_w(self, outlet: int) -> float:
        return self.load_w if self.on[outlet] else 0.0

    def set_outlet(self, outlet: int, on: bool) -> None:
        if not self.stuck:
            self.on[outlet] = on


@contextlib.asynccontextmanager
async def serving(rack: Rack) -> AsyncIterator[SnmpPduAgent]:
    """A simulated PDU on a free port."""
    served = SnmpPduAgent(load_pdu_profile("apc-rpdu2"), rack, OUTLETS, read_community=READ, write_community=WRITE)
    await served.start()
    yield served
    served.stop()


def device(session: SnmpSession, port: int, profile: str = "apc-rpdu2", **changes: object) -> SnmpPdu:
    given_: dict = {"timeout_s": 2.0, "allow_write": True, "read": READ, "write": WRITE, "version": "2c"} | changes
    version = given_.pop("version")
    write = given_.pop("write")
    secret = Credentials(Community(given_.pop("read"), version), Community(write, version) if write else None)
    return SnmpPdu("pdu-1", "127.0.0.1", port, load_pdu_profile(profile), secret, session, **given_)


AUTH, PRIV = "auth-key-of-test", "priv-key-of-test"
USERS = {User("reader", AUTH, PRIV, "sha256", "aes"): False, User("writer", AUTH, PRIV, "sha", "aes"): True}
V3 = ("-u", "reader", "-l", "authPriv", "-a", "SHA-256", "-A", AUTH, "-x", "AES", "-X", PRIV)


async def net_snmp(
    tool: str, port: int, *arguments: str, community: str = READ, version: str = "2c", options: tuple[str, ...] = ()
) -> tuple[int, str]:
    if shutil.which(tool) is None:
        pytest.skip(f"left out: {tool} of net-snmp is not installed")
    own = ("-c", community) if version != "3" else () if "-u" in options else V3
    fixed = ("-m", "", "-M", "", "-On", "-t", "2", "-r", "0", f"-v{version}", *own, *options, f"127.0.0.1:{port}")
    process = await asyncio.create_subprocess_exec(
        tool, *fixed, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def _get_one() -> bytes:
    rfc = api.PROTOCOL_MODULES[1]
    pdu = rfc.GetRequestPDU()
    rfc.apiPDU.set_defaults(pdu)
    rfc.apiPDU.set_varbinds(pdu, [(f"{STATE}.1", rfc.Null(""))])
    message = rfc.Message()
    rfc.apiMessage.set_defaults(message)
    rfc.apiMessage.set_community(message, READ)
    rfc.apiMessage.set_pdu(message, pdu)
    return bytes(encoder.encode(message))


GET_ONE = _get_one()
