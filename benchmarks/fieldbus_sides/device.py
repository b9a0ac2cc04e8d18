"""The device side: many units behind one port, or one behind each of many, as fast as a Python process can be.

    python -m benchmarks.fieldbus_sides.device PORTS

Prints ``{"ports": [...]}``; then each line on standard input is an order, answered by one line of JSON: ``dead 5,15``
(units that stay silent from now on; ``dead @3`` a whole port), ``reset``, ``counts``. It counts what was asked of it,
so that every side is judged by the same eyes.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time

VALUES = {
    0: [230.0, 231.0, 229.0, 800.0, 810.0, 790.0, 184_000.0, 187_110.0, 180_910.0, 552_020.0],
    20: [552_500.0, 24_000.0, 0.998, 50.0, 400.0, 401.0, 399.0, 12.0, 1.0e9, 2.0e6],
    40: [3.0e6, 4.0e6, 1.0e8, 2.0e8, 3.0e8, 4.0e8, 1.0e5, 2.0e5, 3.0e5, 4.0e5],
    342: [5.0e5, 6.0e5],
}


def _registers() -> bytes:
    words = bytearray(2 * 600)
    for addr, values in VALUES.items():
        words[2 * addr : 2 * addr + 4 * len(values)] = struct.pack(f">{len(values)}f", *values)
    return bytes(words)


class Device:
    """Answers function 3 and 4 from the same registers for each unit."""

    def __init__(self, ports: int) -> None:
        self._registers = _registers()
        self._bodies: dict[bytes, bytes] = {}
        self._poll = select.epoll()
        self._listeners: dict[int, tuple[int, socket.socket]] = {}
        self._open: dict[int, tuple[int, socket.socket]] = {}
        self._rest: dict[int, bytes] = {}
        self.ports: list[int] = []
        for number in range(ports):
            listener = socket.create_server(("127.0.0.1", 0), backlog=64)
            listener.setblocking(False)
            self._listeners[listener.fileno()] = (number, listener)
            self._poll.register(listener.fileno(), select.EPOLLIN)
            self.ports.append(listener.getsockname()[1])
        self._dead_units: frozenset[int] = frozenset()
        self._dead_ports: frozenset[int] = frozenset()
        self.reset()

    def reset(self) -> None:
        """Count from now on."""
        self.requests = self.registers = 0
        self._begun = time.monotonic()
        self._cpu = time.process_time()
        self._polls: dict[tuple[int, int], int] = {}
        """(port, unit) → polls, told by the request that begins at register 0."""

    def serve(self) -> None:
        """Serve until standard input ends."""
        orders = sys.stdin.fileno()
        self._poll.register(orders, select.EPOLLIN)
        sys.stdout.write(json.dumps({"ports": self.ports}) + "\n")
        sys.stdout.flush()
        while True:
            for number, _ in self._poll.poll():
                if number in self._open:
                    self._answer(number)
                elif number in self._listeners:
                    self._accept(number)
                else:
                    text = os.read(orders, 65536).decode()
                    if not text:
                        return
                    for line in text.splitlines():
                        sys.stdout.write(json.dumps(self._order(line)) + "\n")
                        sys.stdout.flush()

    def _accept(self, number: int) -> None:
        port, listener = self._listeners[number]
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[sock.fileno()] = (port, sock)
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def _answer(self, number: int) -> None:
        port, sock = self._open[number]
        try:
            data = sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._poll.unregister(number)
            del self._open[number]
            self._rest.pop(number, None)
            sock.close()
            return
        if number in self._rest:
            data = self._rest.pop(number) + data
        out = b""
        while len(data) >= 12:
            question, head = data[7:12], data[:7]
            data = data[12:]
            self.requests += 1
            self.registers += question[4]
            unit = head[6]
            if question[1] == question[2] == 0:
                self._polls[port, unit] = self._polls.get((port, unit), 0) + 1
            if unit in self._dead_units or port in self._dead_ports:
                continue
            body = self._bodies.get(question)
            if body is None:
                body = self._bodies[question] = self._body(question)
            out += head[:4] + struct.pack(">H", len(body) + 1) + head[6:] + body
        if data:
            self._rest[number] = data
        if out:
            try:
                sock.send(out)
            except ConnectionError:
                return

    def _body(self, question: bytes) -> bytes:
        addr, count = int.from_bytes(question[1:3], "big"), int.from_bytes(question[3:5], "big")
        if question[0] not in {3, 4} or not 1 <= count <= 125 or 2 * (addr + count) > len(self._registers):
            return bytes((question[0] | 0x80, 2))
        return bytes((question[0], 2 * count)) + self._registers[2 * addr : 2 * (addr + count)]

    def _order(self, line: str) -> dict[str, object]:
        word, _, rest = line.strip().partition(" ")
        if word == "dead":
            names = [n for n in rest.split(",") if n]
            self._dead_units = frozenset(int(n) for n in names if not n.startswith("@"))
            self._dead_ports = frozenset(int(n[1:]) for n in names if n.startswith("@"))
        elif word == "reset":
            self.reset()
        elif word != "counts":
            return {"error": f"order {word!r}: expected dead, reset or counts"}
        passed = time.monotonic() - self._begun
        return {
            "seconds": passed,
            "requests": self.requests,
            "registers": self.registers,
            "cpu_share": (time.process_time() - self._cpu) / passed if passed > 0 else 0.0,
            "polls": [[port, unit, count] for (port, unit), count in self._polls.items()],
        }


if __name__ == "__main__":
    Device(int(sys.argv[1])).serve()
