"""Driver of Proto rigs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Any

import msgspec

from drivers.asic.cgminer_status import Identity
from drivers.asic.control import SleepControl, SleepsByControl, within
from drivers.asic.credentials import Credentials
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.http import HttpClient
from drivers.asic.outcome import sleep_for
from drivers.asic.proto.answers import FAMILY_NAME, asleep, identity_of, part, proto_status
from drivers.asic.session import MAX_TOKEN_CHARS, SessionHttp, Token, checked
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, DriverError

ROOT = "/api/v1/"
SYSTEM = ROOT + "system"
PAGES = ("telemetry?level=hashboard", "cooling", "pools")
TOKEN_LIFE_S = 600.0
MIN_WEB_S = 0.2


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

    Args:
        host: address of the rig.
        port: its REST interface.
        credentials: its password, without which only what it is can be read; the user is not sent.
        timeouts: time limits.
        writes_allowed: the site's allow-list; False makes every write ``REFUSED``.
        wall: UTC clock in seconds.
        mono: monotonic clock in seconds.
        pause: waits for seconds.
    """

    family = FAMILY_NAME

    def __init__(
        self,
        host: str,
        *,
        port: int = 80,
        credentials: Credentials | None = None,
        timeouts: Timeouts | None = None,
        writes_allowed: bool = False,
        wall: Callable[[], float] = time,
        mono: Callable[[], float] = monotonic,
        pause: Callable[[float], Awaitable[None]] = sleep_for,
    ) -> None:
        self.writes_allowed = writes_allowed
        self._timeouts = timeouts or Timeouts()
        self._http = HttpClient(host, port, timeout_s=self._timeouts.http_s)
        self._session = SessionHttp(
            self._http,
            credentials,
            log_in=log_in,
            header=lambda token: {"Authorization": f"Bearer {token}"},
            mono=mono,
        )
        self._mono = mono
        self._identity = Identity()
        self._identity_at = float("-inf")
        self._sleep = SleepControl(
            FAMILY_NAME, self._http.name, self, writes_allowed, self._timeouts, wall=wall, pause=pause
        )

    async def status(self) -> MinerStatus:
        """Read the rig.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._mono()
        mining = await within(self._timeouts.status_s, self._http.name, self._mining())
        telemetry, cooling, pools = [await self._optional(ROOT + name, began) for name in PAGES]
        if self._mono() - self._identity_at > self._timeouts.identity_max_age_s:
            system = await self._optional(SYSTEM, began, open_=True)
            if system:
                network = await self._optional(ROOT + "network", began, open_=True)
                self._identity, self._identity_at = identity_of(system, network), self._mono()
        latency_ms = (self._mono() - began) * 1000
        return proto_status(mining, telemetry, cooling, pools, self._identity, latency_ms=latency_ms)

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        return asleep(await self._mining())

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        what = "stop" if asleep else "start"
        await self._session.call("POST", f"{ROOT}mining/{what}", timeout_s=self._timeouts.write_s)
        return what

    async def _mining(self) -> dict[str, Any]:
        mining = await self._session.get(ROOT + "mining")
        if not isinstance(mining, dict) or not part(mining, "mining-status"):
            raise BadAnswer(f"{self._http.name}{ROOT}mining: no mining-status in it; not a Proto rig")
        return mining

    async def _optional(self, path: str, began: float, *, open_: bool = False) -> dict[str, Any]:
        """A page in what is left of a status's time; empty where that fails."""
        left_s = min(self._timeouts.http_s, self._timeouts.status_s - (self._mono() - began))
        if left_s < MIN_WEB_S:
            return {}
        try:
            page = await self._session.get(path, open_=open_, timeout_s=left_s)
        except DriverError:
            return {}
        return page if isinstance(page, dict) else {}


def certainty(evidence: Evidence) -> int:
    """Its maker's name on the page of its system."""
    info = part(dict(evidence.pages.get(SYSTEM) or {}), "system-info")
    return 95 if str(info.get("manufacturer", "")).lower() == "proto" else 0


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> ProtoRig:
    """Its driver."""
    return ProtoRig(
        at.web_host,
        port=80 if at.http_port is None else at.http_port,
        credentials=credentials,
        timeouts=timeouts,
        writes_allowed=writes_allowed,
    )


FAMILY = Family(
    name=FAMILY_NAME,
    title="Proto rig",
    make=make,
    certainty=certainty,
    sleeps=True,
    needs_login_to_read=True,
    pages=(SYSTEM,),
    rpc_port=None,
)
