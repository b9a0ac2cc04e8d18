"""Driver of Bitmain's own firmware."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from drivers.asic.antminer_stock.conf import FAMILY_NAME, MODES, SLEEP, mode_of, refusal
from drivers.asic.antminer_stock.extra_port import PORT, ExtraPort
from drivers.asic.antminer_stock.new_api import ask_new_api, is_new_form
from drivers.asic.cgminer import CgminerClient
from drivers.asic.cgminer_status import Answers, Identity, status_from
from drivers.asic.control import SleepsByControl
from drivers.asic.family import Address
from drivers.asic.fields import first, mac, number, rows, text
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.reading import MIN_WEB_S, left_s, with_latency, within
from drivers.asic.work_mode import ModeControl
from drivers.capabilities import MinerStatus
from drivers.errors import DriverError, NoConnection, Refused

HASHING_SHARE = 0.01
"""Below this share of the nominal rate (or 0.1 TH/s) a machine counts as not hashing."""
EXTRA_S = 2.0
"""Longest reading of the second web port."""
WEB_RETRY_S = 60.0
"""Pause after a failed reading over HTTP, so that a broken web page does not slow every poll."""


class AntminerStock(SleepsByControl):
    """One machine with Bitmain's own firmware: :class:`MinerReader` and :class:`Sleeper`.

    Each poll reads ``summary``, ``stats`` and ``pools`` on the JSON socket. The sleep mode, MAC and serial number come
    over HTTP, seldom: when unknown, when old, or when the hash rate contradicts the mode last read.
    Without its web interface and a log-in there is neither sleep nor sleep mode.

    Args:
        at: where it answers.
        given: what every driver is given.
        power_port: newer models give their power on another web port; ``None`` is the usual one, which is left out
            behind an address translation.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given, *, power_port: int | None = None) -> None:
        self._given = given
        self._rpc = CgminerClient(at.host, at.rpc(), timeout_s=given.timeouts.rpc_s)
        if power_port is None and at.rpc_port is None and at.http_port in (None, 80):
            power_port = PORT  # behind an address translation it would be another machine's
        self._http: HttpClient | None = None
        self._extra: ExtraPort | None = None
        if at.web() and given.credentials is not None:
            host, http_s = at.web_host, given.timeouts.http_s
            self._http = HttpClient(host, at.web(), credentials=given.credentials, timeout_s=http_s)
            if power_port is not None:
                http = HttpClient(host, power_port, credentials=given.credentials, timeout_s=min(EXTRA_S, http_s))
                self._extra = ExtraPort(http, given.mono)
        self._new_api: bool | None = None
        """Whether the machine knows the new form; ``None`` until it was needed."""
        self._sleep = ModeControl(self._rpc.name, self, MODES, given)
        self._mode: int | None = None
        self._mode_at = float("-inf")
        self._identity = Identity()
        self._identity_at = float("-inf")
        self._web_not_before = float("-inf")
        self._uptime_s: int | None = None

    # --- reading -------------------------------------------------------------------------------------------------

    async def status(self) -> MinerStatus:
        """Read the machine; asleep with a closed JSON socket is a status, not an error.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._given.mono()
        try:
            answers = await within(self._given.timeouts.status_s, self._rpc.name, self._answers())
        except NoConnection as error:
            # Many firmwares close the JSON socket while asleep. Only its own web page, asked now, can say so.
            if not await self._refresh_mode(began) or self._mode != SLEEP:
                raise error from error.__cause__
            return self._complete(MinerStatus(family=FAMILY_NAME), began)
        status = status_from(FAMILY_NAME, answers)
        if status.uptime_s is not None and self._uptime_s is not None and status.uptime_s < self._uptime_s:
            self._identity_at = float("-inf")
        self._uptime_s = status.uptime_s
        status = replace(status, **_power(answers))
        if self._extra is not None and status.power_w is None:
            status = await self._with_extra(status, self._extra, began)
        hashing = _is_hashing(status)
        if self._given.mono() - self._mode_at > self._mode_limit_s(hashing):
            await self._refresh_mode(began)
        if self._given.mono() - self._identity_at > self._given.timeouts.identity_max_age_s:
            await self._refresh_identity(began)
        return self._complete(status, began)

    async def _answers(self) -> Answers:
        answers = await self._rpc.ask(("summary", "stats", "pools"))
        if self._new_api is not False and not rows(answers.get("stats"), "STATS"):
            answers |= await self._in_new_form()
        return answers

    async def _in_new_form(self) -> dict[str, dict[str, Any]]:
        """``stats`` in the new form, from machines that say nothing in the old one; asked in vain only once."""
        try:
            stats = await ask_new_api(self._rpc.host, self._rpc.port, "stats", self._given.timeouts.rpc_s)
        except DriverError:
            stats = {}
        self._new_api = is_new_form(stats)
        return {"stats": stats} if self._new_api else {}

    async def _with_extra(self, status: MinerStatus, extra: ExtraPort, began: float) -> MinerStatus:
        """With power and warning of the second web port, as an estimate: the maker does not say how it is got."""
        said = await extra.reading(min(EXTRA_S, left_s(self._given, began)))
        if said.power_w is None:
            return status
        errors = status.errors if said.warning is None else (*status.errors, f"warning {said.warning}")
        return replace(status, power_w=said.power_w, power_source="estimated", errors=errors)

    def _complete(self, status: MinerStatus, began: float) -> MinerStatus:
        hashing = _is_hashing(status)
        mode = self._mode if self._mode_is_young() else None
        errors = status.errors
        sleeping: bool | None = None
        if mode is not None:
            sleeping = mode == SLEEP and not hashing
            if mode == SLEEP and hashing:
                errors = (*errors, "configured to sleep, but hashing")
        elif hashing:
            sleeping = False
        identity = Identity.of(status).over(self._identity)
        status = replace(
            status,
            model=identity.model,
            firmware=identity.firmware,
            mac=self._identity.mac or identity.mac,
            serial=identity.serial,
            sleeping=sleeping,
            errors=errors,
        )
        return with_latency(status, self._given, began)

    def _mode_limit_s(self, hashing: bool | None) -> float:
        """How old the mode last read may be before it is read again."""
        if self._mode == SLEEP and hashing:
            return 0.0
        if self._mode != SLEEP and hashing is False:
            # Put to sleep by somebody else, booting, or broken: worth a look, but not in every poll of a waking fleet.
            return self._given.timeouts.mode_max_age_s / 5
        if hashing:
            # That it hashes says that it is awake; its page, a process forked on a weak CPU, is asked seldom.
            return self._given.timeouts.identity_max_age_s
        return self._given.timeouts.mode_max_age_s

    def _mode_is_young(self) -> bool:
        return self._given.mono() - self._mode_at <= self._given.timeouts.mode_max_age_s

    async def _refresh_mode(self, began: float) -> bool:
        """Read the mode over HTTP in what is left of the time; False, and the old one kept, where that fails."""
        conf = await self._web("/cgi-bin/get_miner_conf.cgi", began)
        return conf is not None and self._took_mode(conf)

    async def _refresh_identity(self, began: float) -> None:
        info = await self._web("/cgi-bin/get_system_info.cgi", began)
        if info is None:
            return
        self._identity = Identity(
            model=text(info.get("minertype")),
            firmware=text(info.get("system_filesystem_version")),
            mac=mac(info.get("macaddr")),
            serial=text(info.get("serinum")),
        )
        self._identity_at = self._given.mono()

    async def _web(self, path: str, began: float) -> dict[str, Any] | None:
        """One reading over HTTP within the time of a status, or ``None``."""
        time_s = left_s(self._given, began)
        # A write in progress holds the web interface for up to 20 s; the poll must not wait behind it.
        if self._http is None or self._http.busy or self._given.mono() < self._web_not_before or time_s < MIN_WEB_S:
            return None
        try:
            return await self._http.get_json(path, timeout_s=time_s)
        except DriverError:
            self._web_not_before = self._given.mono() + WEB_RETRY_S
            return None

    def _took_mode(self, conf: dict[str, Any]) -> bool:
        mode = mode_of(conf)
        if mode is None:
            return False
        self._mode = mode
        self._mode_at = self._given.mono()
        return True

    # --- sleep and wake ------------------------------------------------------------------------------------------

    async def read_config(self) -> dict[str, Any]:
        """See :class:`~drivers.asic.work_mode.Configured`."""
        conf = await self._needed_web().get_json("/cgi-bin/get_miner_conf.cgi", strict=True)
        self._took_mode(conf)
        return conf

    async def write_config(self, config: dict[str, Any]) -> str:
        """See :class:`~drivers.asic.work_mode.Configured`."""
        web = self._needed_web()
        self._mode_at = float("-inf")  # whatever comes of it, the mode last read is no longer to be believed
        if self._extra is not None:
            self._extra.forget()
        answer = await web.post_json("/cgi-bin/set_miner_conf.cgi", config, timeout_s=self._given.timeouts.write_s)
        reason = refusal(answer)
        if reason is not None:
            raise Refused(f"{self._rpc.name}: set_miner_conf.cgi: {reason}")
        return "success"

    def _needed_web(self) -> HttpClient:
        if self._http is None:
            raise Refused(f"{self._rpc.name}: sleep needs its web interface and a log-in; give the group credentials")
        return self._http


def _is_hashing(status: MinerStatus) -> bool | None:
    if status.hashrate_ths is None:
        return None
    return status.hashrate_ths > max(0.1, HASHING_SHARE * (status.hashrate_nominal_ths or 0.0))


def _power(answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Power where the answer carries it (some S21-class firmwares), as an estimate: none of them says how it is got."""
    for row in rows(answers.get("stats"), "STATS"):
        watts = number(first(row, "chain_power", "power", "Power", "watt"))
        if watts is not None and watts >= 0:
            return {"power_w": watts, "power_source": "estimated"}
    return {}
