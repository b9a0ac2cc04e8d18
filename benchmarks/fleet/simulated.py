"""A simulated fleet in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PEER_RPC_PORT, PEER_WEB_PORT = 4028, 80
"""Where pyasic looks; it cannot be told otherwise."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A running fleet."""

    groups: list[dict[str, Any]]
    control_port: int

    def fault(self, kind: str, **body: object) -> list[int]:
        """Switch a fault; the numbers of the machines it hit.

        Raises:
            urllib.error.URLError: the fleet refused, or is gone.
        """
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.control_port}/faults", json.dumps({"kind": kind, **body}).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the address is made above
            return list(json.load(answer)["numbers"])

    @property
    def first_hosts(self) -> list[str]:
        """First address of each group."""
        return [str(group["rpc"]).partition("-")[0] for group in self.groups]


@contextlib.contextmanager
def simulated_fleet(machines: int, mix: str, *options: str) -> Iterator[Fleet]:
    """A fleet for as long as the block runs.

    Raises:
        RuntimeError: it did not start; its own message is on standard error.
    """
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "simulator.fleet", "--until-eof", "--control-port", "0"),
            *("--machines", str(machines), "--mix", mix, *options),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            line = child.stdout.readline()
            if not line:
                raise RuntimeError("the simulated fleet did not start; its message is above")
            ready = json.loads(line)
            yield Fleet(ready["groups"], ready["control_port"])
        finally:
            child.stdin.close()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
