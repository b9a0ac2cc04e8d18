"""Recorded answers of miners given to the real drivers: every byte they would send passes through here, no socket does.

All transports of :mod:`drivers.asic` send through one function, ``exchange``; a :class:`Replay` stands in for it. What
is not recorded is refused the way the protocol refuses, so that a driver has to live without it.
"""

from __future__ import annotations

import asyncio
import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from drivers.asic.exchange import Complete
from drivers.asic.identify import families
from drivers.errors import BadAnswer

RECORDED = Path(__file__).parents[2].parent / "shared" / "data" / "asic"
ABSENT = "left out: ../shared/data is not beside this checkout"
Mutate = Callable[[bytes], bytes]
_PREFIX = re.compile(r"^(rpc|web|gql|privileged)_{1,2}")
_INVALID = b'{"STATUS":[{"STATUS":"E","When":1,"Code":14,"Msg":"Invalid command"}],"id":1}\x00'

FAMILY_OF = {
    "auradine": "auradine",
    "avalon": "avalon",
    "bitaxe": "bitaxe",
    "bitmain-stock": "antminer-stock",
    "braiins": "braiins",
    "elphapex": "elphapex",
    "epic": "epic",
    "hammer": "cgminer",
    "iceriver": "iceriver",
    "luxos": "luxos",
    "mskminer": "cgminer",
    "proto": "proto",
    "sealminer": "sealminer",
    "vnish": "vnish",
    "whatsminer": "whatsminer-v2",
}
"""Family of each folder of recordings; ``M50S-api-v3-vendor-mock`` is ``whatsminer-v3``."""


@dataclass(frozen=True)
class Recording:
    """One model's folder."""

    folder: str
    family: str
    files: dict[str, bytes] = field(repr=False)
    """By command, with the prefix that says which interface answered."""
    expected: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """For test names."""
        return self.folder


def recordings() -> list[Recording]:
    """Every model of ``index.tsv``; empty where the recordings are not beside the checkout."""
    index = RECORDED / "index.tsv"
    if not index.is_file():
        return []
    folders: dict[str, dict[str, bytes]] = defaultdict(dict)
    with index.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            file = RECORDED / row["file"]
            folders[str(Path(row["file"]).parent)][row["command"]] = file.read_bytes()
    found = []
    for folder, files in sorted(folders.items()):
        expected = RECORDED / folder / "expected.json"
        family = "whatsminer-v3" if "api-v3" in folder else FAMILY_OF[folder.partition("/")[0]]
        said = json.loads(expected.read_bytes()) if expected.is_file() else {}
        found.append(Recording(folder, family, files, said))
    return found


def plain(name: str) -> str:
    """A command or path reduced to what both have in common."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@dataclass
class Replay:
    """One machine's recorded answers, and what is done to each before it is passed on."""

    recording: Recording
    joins: bool = True
    mutate: Mutate = lambda data: data
    asked: list[str] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list, repr=False)
    """Every request as it would have gone over the wire."""

    async def exchange(
        self, host: str, port: int, request: bytes, *, timeout_s: float, complete: Complete, max_bytes: int
    ) -> bytes:
        """Stands in for :func:`drivers.asic.exchange.exchange`."""
        del host, timeout_s
        self.sent.append(request)
        raw = self.altered(request, self._answer(port, request))
        end = complete(bytearray(raw), 0)
        if (len(raw) if end < 0 else end) > max_bytes:
            raise BadAnswer(f"answer larger than {max_bytes} bytes")
        if not raw:
            raise ConnectionResetError("closed without an answer")
        return raw if end < 0 else raw[:end]

    def altered(self, request: bytes, answer: bytes) -> bytes:
        """What the driver gets for what was recorded."""
        del request
        return self.mutate(answer)

    # --- what was asked ---

    def _answer(self, port: int, request: bytes) -> bytes:
        if re.match(rb"[A-Z]+ /", request):
            return self._http(request)
        if request[:1] == b"{":
            return self._json(json.loads(request))
        body = json.loads(request[4:])
        answer = self._framed(body)
        return len(answer).to_bytes(4, "little") + answer

    def _json(self, request: dict[str, Any]) -> bytes:
        if "id" in request:
            self.asked.append(f"line {request['id']}")
            if self.recording.family != "iceriver":
                raise ConnectionRefusedError(111, "Connection refused")
            absent = json.dumps({"id": request["id"], "ret": {"code": 1}}).encode()
            return self.recording.files.get(request["id"], absent) + b"\n"
        command = str(request.get("command") or request.get("cmd"))
        self.asked.append(f"rpc {command}")
        if self.recording.family == "epic":
            return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        if self._is_web_only():
            raise ConnectionRefusedError(111, "Connection refused")
        if "+" not in command:
            return self._command(command) or _INVALID
        if not self.joins or self._command("summary") is None:
            return _INVALID
        parts = {name: self._command(name) or _INVALID for name in command.split("+")}
        try:
            joined = {name: [json.loads(part.rstrip(b"\x00"))] for name, part in parts.items()}
        except ValueError:
            return _INVALID
        return json.dumps({**joined, "id": 1}).encode() + b"\x00"

    def _is_web_only(self) -> bool:
        return not any(self._command(name) for name in ("summary", "version", "get_version", "stats", "status"))

    def _command(self, name: str) -> bytes | None:
        """A command of the JSON socket; ``stats`` and ``estats`` are one on Avalons."""
        if self.recording.family in ("bitaxe", "epic", "elphapex", "proto", "iceriver", "whatsminer-v3"):
            return None
        same = {"estats": ("estats", "stats"), "version": ("version", "get_version")}
        names = same.get(name, (name,))
        for candidate in names:
            for prefix in ("rpc__", "rpc_", ""):
                found = self.recording.files.get(prefix + candidate)
                if found is not None and (self.recording.family != "braiins" or b"STATUS" in found):
                    return found.rstrip() + b"\x00"
        return None

    def _framed(self, body: dict[str, Any]) -> bytes:
        command, param = str(body.get("cmd")), body.get("param")
        self.asked.append(f"framed {command} {param}")
        files = self.recording.files
        if self.recording.family != "whatsminer-v3":
            raise ConnectionRefusedError(111, "Connection refused")
        if command in files:
            return files[command]
        if isinstance(param, str):
            parts = [files.get(f"{command}_{name}") for name in param.split("+")]
            merged: dict[str, Any] = {}
            for part in parts:
                if part is not None:
                    said = json.loads(part)
                    merged = {**said, "msg": {**merged.get("msg", {}), **said.get("msg", {})}}
            if merged:
                return json.dumps(merged).encode()
        return files.get("error_invalid_command", b'{"code":-2,"msg":"invalid command","desc":""}')

    def _http(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        path = target.partition("?")[0]
        self.asked.append(f"{method} {path}")
        if path == "/" and self.recording.family == "antminer-stock":
            return _reply(b"<html>401</html>", 401, challenge='Digest realm="antMiner Configuration", nonce="n"')
        if path.endswith("graphql"):
            return self._graphql(body)
        if path.endswith(("auth/login", "unlock", "/token")):
            return _reply(b'{"token":"replayed","access_token":"replayed","Token":[{"Token":"replayed"}]}')
        found = self._page(path) if method in ("GET", "POST") else None
        return _reply(b"<html>404</html>", 404) if found is None else _reply(found)

    def _page(self, path: str) -> bytes | None:
        wanted = "_" + plain(path.removesuffix(".cgi"))
        fitting = [
            (len(stem), data)
            for name, data in self.recording.files.items()
            if not name.startswith(("rpc_", "privileged", "gql_"))
            and (self.recording.family != "braiins" or b'"STATUS"' not in data)
            and wanted.endswith("_" + (stem := plain(_PREFIX.sub("", name).removesuffix(".cgi").removesuffix("_full"))))
        ]
        return max(fitting, default=(0, None))[1]

    def _graphql(self, body: bytes) -> bytes:
        parts = [json.loads(data) for name, data in self.recording.files.items() if name.startswith("gql_")]
        if not parts:
            return _reply(b"<html>404</html>", 404)
        if b"login" in body.lower():
            said = {"data": {"auth": {"login": {"__typename": "VoidResult"}}}}
            return _reply(json.dumps(said).encode(), cookie="session_id=replayed; Path=/")
        merged: Any = {}
        for part in parts:
            merged = _merge(merged, part)
        return _reply(json.dumps(merged if "data" in merged else {"data": merged}).encode())


def _merge(left: Any, right: Any) -> Any:
    if isinstance(left, dict) and isinstance(right, dict):
        return {**left, **{key: _merge(left.get(key), value) for key, value in right.items()}}
    return left if right is None else right


def _reply(body: bytes, status: int = 200, cookie: str | None = None, challenge: str | None = None) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head += f"Set-Cookie: {cookie}\r\n" if cookie else ""
    head += f"WWW-Authenticate: {challenge}\r\n" if challenge else ""
    return (head + "Connection: close\r\n\r\n").encode() + body


@contextmanager
def replayed(replay: Replay) -> Iterator[Replay]:
    """Every transport sends to this recording while it lasts."""
    with pytest.MonkeyPatch.context() as patch:
        families()  # every family's module is there to be patched
        patch.setattr(asyncio, "sleep", _at_once)  # nothing here takes time, so that nothing is waited for
        for name, module in list(sys.modules.items()):
            if name.startswith("drivers.asic.") and hasattr(module, "exchange") and name != "drivers.asic.exchange":
                patch.setattr(module, "exchange", replay.exchange)
        yield replay


_sleep = asyncio.sleep


async def _at_once(seconds: float, result: Any = None) -> Any:
    del seconds
    return await _sleep(0, result)
