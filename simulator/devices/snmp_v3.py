"""SNMP version 3 for a simulated agent: users with keys (RFC 3414), on pysnmp's engine; the objects are the agent's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.entity.rfc3413 import cmdrsp, context
from pysnmp.proto import rfc1905

from drivers.snmp.credentials import User

_AUTHORIZATION_ERROR = 16
_AUTH = {
    "md5": config.USM_AUTH_HMAC96_MD5,
    "sha": config.USM_AUTH_HMAC96_SHA,
    "sha224": config.USM_AUTH_HMAC128_SHA224,
    "sha256": config.USM_AUTH_HMAC192_SHA256,
    "sha384": config.USM_AUTH_HMAC256_SHA384,
    "sha512": config.USM_AUTH_HMAC384_SHA512,
}
_PRIV = {
    "des": config.USM_PRIV_CBC56_DES,
    "aes": config.USM_PRIV_CFB128_AES,
    "aes192": config.USM_PRIV_CFB192_AES,
    "aes256": config.USM_PRIV_CFB256_AES,
}

Handler = Callable[[Any, bool], tuple[int, int, list[Any]] | None]
"""(PDU, may write) → error status, error index, values; ``None`` for silence."""


class V3Face:
    """What a v3 message is answered with. ``users`` maps each user to whether it may write."""

    def __init__(self, users: Mapping[User, bool], handle: Handler) -> None:
        self._engine = SnmpEngine()
        self._out = _Outbox()
        self._engine.transport_dispatcher = self._out
        for user in users:
            config.add_v3_user(
                self._engine,
                user.user,
                _AUTH[user.auth] if user.auth_key else config.USM_AUTH_NONE,
                user.auth_key,
                _PRIV[user.priv] if user.priv_key else config.USM_PRIV_NONE,
                user.priv_key,
            )
        _Responder(self._engine, context.SnmpContext(self._engine), users, handle)

    def answer(self, data: bytes, addr: tuple[str, int]) -> bytes | None:
        """The answer to one message: values, a report, or ``None`` for silence."""
        self._out.message = None
        self._engine.message_dispatcher.receive_message(
            self._engine, udp.DOMAIN_NAME, udp.UdpTransportAddress(addr), data
        )
        return self._out.message


class _Outbox:
    """Stands where pysnmp expects its sockets, and keeps the one message it would send."""

    message: bytes | None = None

    def send_message(self, message: bytes, _domain: Any, _address: Any) -> None:
        self.message = bytes(message)

    def get_timer_resolution(self) -> float:
        """What pysnmp counts its time windows in."""
        return 0.5


class _Responder(cmdrsp.CommandResponderBase):  # type: ignore[misc]  # pysnmp has no types
    """Hands questions of known users to the agent."""

    SUPPORTED_PDU_TYPES = tuple(
        kind.tagSet
        for kind in (rfc1905.GetRequestPDU, rfc1905.GetNextRequestPDU, rfc1905.GetBulkRequestPDU, rfc1905.SetRequestPDU)
    )

    def __init__(self, engine: Any, names: Any, users: Mapping[User, bool], handle: Handler) -> None:
        super().__init__(engine, names)
        self._users = {user.user: (_level(user), may_write) for user, may_write in users.items()}
        self._handle = handle

    def handle_management_operation(self, snmpEngine: Any, stateReference: Any, contextName: Any, PDU: Any) -> None:  # noqa: N803, ARG002 - pysnmp's signature
        about = snmpEngine.observer.get_execution_context("rfc3412.receiveMessage:request")
        level, may_write = self._users.get(str(about["securityName"]), (99, False))
        if int(about["securityLevel"]) < level:
            self.send_varbinds(snmpEngine, stateReference, _AUTHORIZATION_ERROR, 0, [])
            return
        result = self._handle(PDU, may_write)
        if result is not None:
            status, index, pairs = result
            self.send_varbinds(snmpEngine, stateReference, status, index, pairs)


def _level(user: User) -> int:
    """1 noAuthNoPriv, 2 authNoPriv, 3 authPriv (RFC 3411): a user with keys has to use them."""
    return 1 + (user.auth_key is not None) + (user.priv_key is not None)
