"""One question to a security token, by a process of its own that has so long and no longer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import AgentError

CHILD = "agent.hsm.child"
LIMIT_S = 15.0
"""For starting the process, opening a session and one signature; a TPM takes a second or two of it."""
BURY_S = 1.0
"""How long a killed process may take to end."""
_ROOT = Path(__file__).parents[2]


class TokenError(AgentError):
    """The token did not do what was asked; the message says why, and never holds the PIN.

    Args:
        code: as of :class:`agent.hsm.child.Refused`, or ``hangs`` or ``crashed``.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class Token:
    """How a token is reached, and what it is asked for.

    Args:
        module: path of its PKCS#11 library.
        label: of the token.
        key: label of the key that is made or found in it.
        pin_file: file of mode 0600 with the user PIN; read by the process alone.
        limit_s: how long one question may take.
    """

    module: str
    label: str
    key: str
    pin_file: Path
    limit_s: float = LIMIT_S
    _refused: tuple[str, tuple[int, int] | None] | None = field(default=None, init=False)
    """What the token said of the PIN, and which state of the file that was."""
    _stuck: asyncio.subprocess.Process | None = field(default=None, init=False)

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The answer to a question, within the limit whatever the token does.

        Raises:
            TokenError: there is none.
        """
        self._must_be_tried()
        process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment(),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self.limit_s):
                out, _ = await process.communicate(self._request(op, fields))
        except TimeoutError:
            raise self._hangs(op) from None
        finally:
            if process.returncode is None:
                self._stuck = process
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                # A process that waits for a device in the kernel ends when that does.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BURY_S):
                        await process.wait()
        return self._answer(process.returncode or 0, out)

    def ask_now(self, op: str, **fields: Any) -> dict[str, Any]:
        """As :meth:`ask`, blocking: for programs that a person waits for."""
        self._must_be_tried()
        with subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment(),
        ) as process:
            try:
                out, _ = process.communicate(self._request(op, fields), timeout=self.limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise self._hangs(op) from None
        return self._answer(process.returncode, out)

    @staticmethod
    def _command() -> list[str]:
        return [sys.executable, "-P", "-m", CHILD]

    @staticmethod
    def _environment() -> dict[str, str]:
        """This process's own: libraries of tokens are told by it where their store is."""
        path = os.environ.get("PYTHONPATH")
        return {**os.environ, "PYTHONPATH": str(_ROOT) if not path else f"{_ROOT}{os.pathsep}{path}"}

    def _request(self, op: str, fields: dict[str, Any]) -> bytes:
        base = {"module": self.module, "token": self.label, "key": self.key, "pin_file": str(self.pin_file)}
        return json.dumps({"op": op} | base | fields).encode()

    def _answer(self, code: int, out: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(out)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            text = f"token {self.label!r}: the process that loads {self.module} ended without an answer (exit {code})"
            raise TokenError("crashed", text)
        if "error" in answer:
            if answer["code"] == "pin":
                self._refused = str(answer["error"]), self._pin_state()
            raise TokenError(str(answer["code"]), str(answer["error"]))
        self._refused = None
        return answer

    def _must_be_tried(self) -> None:
        """A wrong PIN is not tried twice, and nobody is put beside a process that cannot be ended."""
        if self._refused is not None and self._refused[1] == self._pin_state():
            raise TokenError("pin", self._refused[0])
        if self._stuck is not None and self._stuck.returncode is None:
            text = f"token {self.label!r}: the process that asked it before does not end; is the device in its place?"
            raise TokenError("hangs", text)
        self._stuck = None

    def _pin_state(self) -> tuple[int, int] | None:
        try:
            found = self.pin_file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _hangs(self, op: str) -> TokenError:
        return TokenError("hangs", f"token {self.label!r}: no answer to {op} within {self.limit_s:g} s")
