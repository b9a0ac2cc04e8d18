"""Driver of Proto rigs."""

from __future__ import annotations

from typing import Any

import msgspec

from drivers.asic.cgminer_status import Identity
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.credentials import Credentials
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.proto.answers import FAMILY_NAME, asleep, identity_of, part, proto_status
from drivers.asic.reading import if_time, with_latency, within
from drivers.asic.session import MAX_TOKEN_CHARS, SessionHttp, Token, bearer, checked
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer

ROOT = "/api/v1/"
SYSTEM = ROOT + "system"
PAGES = ("telemetry?level=hashboard", "cooling", "pools")
TOKEN_LIFE_S = 600.0


async def log_in(http: HttpClient, credentials: Credentials) -> Token:
    """A token for the password; there is no other user.

    Raises:
        DriverError: no token.
    """
    path = ROOT + "auth/login"
    body = msgspec.json.encode({"password": credentials.password})
    answer = checked(http, path, await http.exchange("POST", path, body=body))
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_CHARS or not token.isprintable():
        raise BadAnswer(f"{http.name}{path}: no access_token in the answer; nothing else was sent")
    return Token(token, TOKEN_LIFE_S)


class ProtoRig(SleepsByControl):
    """One rig: :class:`MinerReader` and :class:`Sleeper`.

    Without its password only what it is can be read; the user is not sent.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._http = HttpClient(at.web_host, at.web(), timeout_s=given.timeouts.http_s)
        self._session = SessionHttp(self._http, given.credentials, log_in=log_in, header=bearer, mono=given.mono)
        self._identity = Identity()
        self._identity_at = float("-inf")
        self._sleep = SleepControl(FAMILY_NAME, self._http.name, self, given)

    async def status(self) -> MinerStatus:
        """Read the rig.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._given.mono()
        mining = await within(self._given.timeouts.status_s, self._http.name, self._mining())
        telemetry, cooling, pools = [await self._optional(ROOT + name, began) for name in PAGES]
        if self._given.mono() - self._identity_at > self._given.timeouts.identity_max_age_s:
            system = await self._optional(SYSTEM, began, open_=True)
            if system:
                network = await self._optional(ROOT + "network", began, open_=True)
                self._identity, self._identity_at = identity_of(system, network), self._given.mono()
        status = proto_status(mining, telemetry, cooling, pools, self._identity)
        return with_latency(status, self._given, began)

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        return asleep(await self._mining())

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        what = "stop" if asleep else "start"
        await self._session.call("POST", f"{ROOT}mining/{what}", timeout_s=self._given.timeouts.write_s)
        return what

    async def _mining(self) -> dict[str, Any]:
        mining = await self._session.get(ROOT + "mining")
        if not isinstance(mining, dict) or not part(mining, "mining-status"):
            raise BadAnswer(f"{self._http.name}{ROOT}mining: no mining-status in it; not a Proto rig")
        return mining

    async def _optional(self, path: str, began: float, *, open_: bool = False) -> dict[str, Any]:
        get = self._session.get
        return await if_time(self._given, began, lambda left_s: get(path, open_=open_, timeout_s=left_s))


def certainty(evidence: Evidence) -> int:
    """Its maker's name on the page of its system."""
    info = part(dict(evidence.pages.get(SYSTEM) or {}), "system-info")
    return 95 if str(info.get("manufacturer", "")).lower() == "proto" else 0


FAMILY = Family(
    name=FAMILY_NAME,
    title="Proto rig",
    make=ProtoRig,
    certainty=certainty,
    sleeps=True,
    needs_login_to_read=True,
    pages=(SYSTEM,),
    rpc_port=None,
)
