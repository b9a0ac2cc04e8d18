"""Writes of Whatsminer's API 2: a token that is kept and used again, and codes that say why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drivers.asic.cgminer import CgminerClient, error_of
from drivers.asic.credentials import Credentials
from drivers.asic.whatsminer_v2.answers import message
from drivers.asic.whatsminer_v2.cipher import Token, make_token, password_key, seal, unseal
from drivers.errors import BadAnswer, DriverError, Refused

TOKEN_LIFE_S = 25 * 60.0
"""A token lives 30 minutes, and one address gets 32 of them: each is used until shortly before its end."""
READY_RETRY_S = 60.0
PERMISSION_DENIED = 45
TOKEN_WRONG = 135
TOO_MANY_TOKENS = 136

_HINTS = {
    PERMISSION_DENIED: "; switch the write API on with WhatsMinerTool (the default password must have been changed)",
    TOKEN_WRONG: "; the password is wrong: correct the group's credentials",
    TOO_MANY_TOKENS: "; this address has 32 tokens open, they end by themselves within 30 minutes",
}


class WriteApi:
    """Encrypted commands to one machine.

    Args:
        rpc: the JSON socket.
        credentials: the password of the account ``admin``; there is no other user.
        mono: monotonic clock in seconds.
    """

    def __init__(self, rpc: CgminerClient, credentials: Credentials | None, mono: Callable[[], float]) -> None:
        self._rpc = rpc
        self._credentials = credentials
        self._mono = mono
        self._token: Token | None = None
        self._token_until = float("-inf")
        self._salt: object = None
        self._key = ""
        self._ready_not_before = float("-inf")
        self.not_ready: str | None = None
        """Why the machine would refuse a write, as far as it said so when a token was asked for."""

    async def keep_ready(self) -> None:
        """Have a token before it is needed: when thousands are told to sleep at once, making theirs would take long.

        Never raises; what the machine says against it is kept in :attr:`not_ready`.
        """
        if self._credentials is None or self._mono() < max(self._token_until, self._ready_not_before):
            return
        try:
            await self._fresh_token()
        except DriverError as error:
            self._ready_not_before = self._mono() + READY_RETRY_S
            self.not_ready = f"cannot be told to sleep: {error}" if isinstance(error, Refused) else None

    async def tell(self, command: str, parameters: dict[str, str] | None = None, *, timeout_s: float) -> str:
        """Give one command; what the machine answered.

        Raises:
            Refused: it said no, or there is no password: nothing happened.
            DriverError: its answer was lost or cannot be read; then it is not known what happened.
        """
        fresh = self._token is None or self._mono() >= self._token_until
        answer = await self._send(command, parameters or {}, timeout_s)
        error = _error(answer)
        if error is not None and error[0] == TOKEN_WRONG and not fresh:
            # Restarted since: it has forgotten the token and says so before doing anything.
            self._token = None
            answer = await self._send(command, parameters or {}, timeout_s)
            error = _error(answer)
        if error is not None:
            raise self._refusal(command, error)
        said = answer.get("Msg")
        return str(said)[:200] if isinstance(said, str) else "ok"

    async def _send(self, command: str, parameters: dict[str, str], timeout_s: float) -> dict[str, Any]:
        token = await self._fresh_token()
        answer = await self._rpc.request(seal(token, command, parameters), command, timeout_s=timeout_s)
        return unseal(token, answer, f"{self._rpc.name} {command}")

    async def _fresh_token(self) -> Token:
        if self._token is not None and self._mono() < self._token_until:
            return self._token
        if self._credentials is None:
            raise Refused(f"{self._rpc.name}: writing needs the admin password; give the group credentials")
        answer = await self._rpc.command("get_token")
        error = _error(answer)
        said = answer.get("Msg")
        if error is None and isinstance(said, str):
            error = (None, said[:200])  # "over max connect" and the like come with the status of a success
        if error is not None:
            raise self._refusal("get_token", error)
        try:
            token = self._make_token(message(answer), self._credentials.password)
        except BadAnswer as bad:
            raise BadAnswer(f"{self._rpc.name}: {bad}; nothing sent") from bad
        self._token, self._token_until = token, self._mono() + TOKEN_LIFE_S
        self.not_ready = None
        return token

    def _make_token(self, given: dict[str, Any], password: str) -> Token:
        salt = given.get("salt")
        if self._salt is None or salt != self._salt:
            self._key = password_key(given, password)
            self._salt = salt
        return make_token(given, self._key)

    def _refusal(self, command: str, error: tuple[int | None, str]) -> Refused:
        code, said = error
        if code == TOKEN_WRONG:
            self._token = None
        if "write" in said.lower() and code not in _HINTS:
            code = PERMISSION_DENIED
        return Refused(f"{self._rpc.name}: {command} refused with code {error[0]} ({said}){_HINTS.get(code or 0, '')}")


def _error(answer: dict[str, Any]) -> tuple[int | None, str] | None:
    """Code and message of a refusal: by its status, and by codes that some versions send with a good one."""
    error = error_of(answer)
    if error is not None:
        return error
    code = answer.get("Code")
    if answer.get("STATUS") not in ("S", "I") and "STATUS" in answer and not isinstance(answer["STATUS"], list):
        return (code if isinstance(code, int) else None, str(answer.get("Msg", ""))[:200])
    if code in (TOKEN_WRONG, TOO_MANY_TOKENS) and isinstance(answer.get("Msg"), str):
        return (code, answer["Msg"][:200])
    return None
