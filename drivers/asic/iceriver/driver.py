"""Driver of IceRiver miners: reading only, for their firmware has nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from drivers.asic.exchange import exchange, named
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.iceriver.answers import FAMILY_NAME, iceriver_status, merged
from drivers.asic.reading import timed
from drivers.asic.repair import parse_answer
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, Refused

LINE_PORT = 4111
MAX_LINE_BYTES = 64 * 1024
"""Largest answer accepted; real ones have some hundred bytes."""
QUESTIONS = ("boardpow", "board", "fan", "getpool", "state")
SELDOM = ("info", "getnet")


class IceRiver:
    """One IceRiver: :class:`MinerReader`, no ``Sleeper``. Only a switch takes its load away.

    Its line socket asks for no log-in.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._host = at.host
        self._port = at.rpc(LINE_PORT)
        self._asking = asyncio.Lock()
        self._seldom: dict[str, Any] = {}
        self._seldom_at = float("-inf")

    @property
    def name(self) -> str:
        """What errors call the machine."""
        return f"miner {self._host}:{self._port}"

    async def status(self) -> MinerStatus:
        """Read the machine; ``sleeping`` is False where it hashes and unknown where it does not.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self.name, self._read())

    async def _read(self) -> MinerStatus:
        return iceriver_status(await self._fields())

    async def _fields(self) -> dict[str, Any]:
        async with self._asking:
            returned = [await ask(self._host, self._port, QUESTIONS[0], self._given.timeouts.rpc_s)]
            for question in QUESTIONS[1:]:
                returned.append(await self._optional(question))
            if self._given.mono() - self._seldom_at > self._given.timeouts.identity_max_age_s:
                self._seldom = merged([await self._optional(question) for question in SELDOM])
                self._seldom_at = self._given.mono()
            return merged([self._seldom, *returned])

    async def _optional(self, question: str) -> dict[str, Any]:
        """An answer that a version may not have."""
        try:
            return await ask(self._host, self._port, question, self._given.timeouts.rpc_s)
        except (BadAnswer, Refused):
            return {}


async def ask(host: str, port: int, question: str, timeout_s: float) -> dict[str, Any]:
    """One question on the line socket; the ``ret`` of its answer.

    Raises:
        DriverError: it did not answer, refused, or cannot be understood.
    """
    name = f"miner {host}:{port} {question}"
    request = msgspec.json.encode({"id": question}) + b"\r\n"
    with named(name, timeout_s):
        data = await exchange(host, port, request, timeout_s=timeout_s, complete=until_whole, max_bytes=MAX_LINE_BYTES)
    answer = parse_answer(data, source=name)
    ret = answer.get("ret")
    if answer.get("id") != question or not isinstance(ret, dict):
        raise BadAnswer(f"{name}: an answer with this id and a ret expected; keys seen: {sorted(answer)[:10]}")
    if ret.get("code") not in (0, None):
        raise Refused(f"{name}: refused with code {str(ret['code'])[:20]}")
    return ret


async def ask_info(host: str, port: int, timeout_s: float) -> dict[str, Any]:
    """The whole answer to ``info``, as evidence of who is there.

    Raises:
        DriverError: see :func:`ask`.
    """
    return {"id": "info", "ret": await ask(host, port, "info", timeout_s)}


def until_whole(received: bytearray, newest: int) -> int:
    """It keeps the connection open, so an answer ends where its braces close or with its line.

    Only a closing brace in the newest part can be the end, which keeps hostile input from being counted again and
    again.
    """
    line = received.find(b"\n", newest)
    if line >= 0 and received[:line].strip():
        return line
    if received.find(b"}", newest) < 0:
        return -1
    text = bytes(received)
    return len(text) if text.count(b"{") == text.count(b"}") else -1
