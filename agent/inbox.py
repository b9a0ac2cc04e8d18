"""What people hand to a running agent: signed acts and orders, tags, maintenance, keys, words about orders, questions.

They are files in ``<state>/inbox``. A file ``x.json`` is taken once and answered by ``x.result`` beside it. Files
arrive by rename, so that half-written ones are never read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from agent.curtailment.gates import Gates
from agent.errors import AgentError
from wire.dsse import ORDER_TYPE
from wire.errors import WireError
from wire.registry import KeysDocument

log = structlog.get_logger()

PERIOD_S = 0.5
MAX_BYTES = 262_144
MAX_SLOW = 8
LOGGED = 300
"""Characters of an answer that go into the log: a plan names every machine."""
Request = Callable[[Mapping[str, Any]], Awaitable[str]]
"""Answers a request; raises :class:`WireError` where it cannot be, :class:`LedgerError` where it is not recorded."""


class Inbox:
    """Polls the folder; local people only, the folder is the agent's user's."""

    def __init__(
        self,
        state_dir: Path,
        gates: Gates,
        keys: Callable[[], KeysDocument | None],
        replaced: Callable[[Mapping[str, Any]], Awaitable[str]] | None = None,
        commission: Callable[[Mapping[str, Any]], Awaitable[str]] | None = None,
        requests: Mapping[str, Request] | None = None,
        order: Callable[[bytes], Awaitable[str]] | None = None,
        slow: frozenset[str] = frozenset(),
    ) -> None:
        self._slow = slow
        """Requests that may wait for somebody, a token: nothing that is handed in after them waits for them."""
        self._under_way: dict[Path, asyncio.Task[None]] = {}
        self._requests = dict(requests or {})
        """What else can be asked, by its ``ty``."""
        self._order = order
        self._replaced = replaced
        self._commission = commission
        self._dir = state_dir / "inbox"
        self._gates = gates
        self._keys = keys
        self._dir.mkdir(mode=0o700, exist_ok=True)

    async def run(self) -> None:
        """Take files until cancelled."""
        try:
            while True:
                for path in await asyncio.to_thread(self._waiting):
                    if path not in self._under_way:
                        await self._take(path)
                await asyncio.sleep(PERIOD_S)
        finally:
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _waiting(self) -> list[Path]:
        return sorted(self._dir.glob("*.json"))

    @staticmethod
    def _read(path: Path) -> bytes:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)

    @staticmethod
    def _answer(path: Path, text: str) -> None:
        part = path.with_suffix(".part")
        part.write_text(text)
        path.unlink(missing_ok=True)
        part.replace(path.with_suffix(".result"))

    async def _take(self, path: Path) -> None:
        try:
            raw = await asyncio.to_thread(self._read, path)
        except OSError as error:
            await self._finish(path, {"ok": False, "text": str(error)})
            return
        if self._is_slow(raw) and len(self._under_way) < MAX_SLOW:
            task = asyncio.create_task(self._answered(path, raw), name=f"inbox-{path.name}")
            self._under_way[path] = task
            task.add_done_callback(lambda _: self._under_way.pop(path, None))
        else:
            await self._answered(path, raw)

    def _is_slow(self, raw: bytes) -> bool:
        try:
            doc = json.loads(raw)
        except (ValueError, RecursionError):
            return False
        return isinstance(doc, dict) and doc.get("ty") in self._slow

    async def _answered(self, path: Path, raw: bytes) -> None:
        try:
            result: dict[str, Any] = {"ok": True, "text": await self._do(path.name, raw)}
        except (WireError, AgentError, OSError) as error:
            result = {"ok": False, "text": str(error)}
        except KeyError as error:
            result = {"ok": False, "text": f"{path.name}: field {error} is missing"}
        await self._finish(path, result)

    async def _finish(self, path: Path, result: dict[str, Any]) -> None:
        log.info("inbox", file=path.name, ok=result["ok"], text=str(result["text"])[:LOGGED])
        await asyncio.to_thread(self._answer, path, json.dumps(result))

    async def _do(self, name: str, raw: bytes) -> str:
        if len(raw) > MAX_BYTES:
            raise WireError(f"{name}: larger than {MAX_BYTES} bytes")
        try:
            doc = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise WireError(f"{name}: not JSON: {error}") from None
        if isinstance(doc, dict) and doc.get("ty") == "tag":
            await self._gates.tag(str(doc["object"])[:64], str(doc["who"])[:100], str(doc["reason"])[:300])
            return f"{doc['object']} is tagged"
        if isinstance(doc, dict) and doc.get("ty") == "untag":
            await self._gates.untag(str(doc["object"])[:64], str(doc["who"])[:100])
            return f"the tag at {doc['object']} is taken off"
        if isinstance(doc, dict) and doc.get("ty") == "positions":
            return await self._gates.confirm_positions(str(doc["who"])[:100], doc["open"])
        if isinstance(doc, dict) and doc.get("ty") == "replace" and self._replaced is not None:
            return await self._replaced(doc)
        if isinstance(doc, dict) and doc.get("ty") == "commission" and self._commission is not None:
            return await self._commission(doc)
        if isinstance(doc, dict) and (request := self._requests.get(str(doc.get("ty")))) is not None:
            return await request(doc)
        if isinstance(doc, dict) and doc.get("payloadType") == ORDER_TYPE and self._order is not None:
            return await self._order(raw)
        act = await self._gates.take_act(raw, self._keys())
        return f"{act.ty} act {act.id} is in force; mode is {self._gates.mode}"


async def hand_in(state_dir: Path, name: str, raw: bytes, *, wait_s: float = 10.0) -> tuple[bool, str]:
    """Put a file into a running agent's inbox and wait for its answer.

    Raises:
        AgentError: there is no inbox, or no answer in time.
    """
    folder = state_dir / "inbox"
    if not folder.is_dir():
        raise AgentError(f"{folder}: no inbox; is the agent of this site running on this machine?")
    part, target = folder / f"{name}.part", folder / f"{name}.json"
    part.write_bytes(raw)
    part.replace(target)
    result = target.with_suffix(".result")
    for _ in range(int(wait_s / 0.1)):
        if result.exists():
            answer = json.loads(result.read_text())
            result.unlink()
            return bool(answer["ok"]), str(answer["text"])
        await asyncio.sleep(0.1)
    target.unlink(missing_ok=True)
    raise AgentError(f"{folder}: no answer within {wait_s:g} s; is the agent running?")
