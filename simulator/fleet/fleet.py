"""A fleet on loopback addresses: who stands where, one listening socket per port, faults."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from time import monotonic

import structlog

from simulator.devices.asic_server import AsicServer
from simulator.fleet.kinds import Kind
from simulator.fleet.machine import FleetMachine
from simulator.latencies import Latencies, load_latencies
from simulator.loopback import SimulationError
from simulator.machine import MachineState, MachineTimes

LOOPBACK = IPv4Network("127.0.0.0/8")
BACKLOG = 4096
SERVER_FAULTS = ("silent", "slow", "half_open", "garbage", "http_down", "write_error", "denies_sleep")
BODY_FAULTS = ("refuses_sleep", "mode_only", "wakes_itself", "pool_lost", "dead")
ACTIONS = ("reboot",)


@dataclass(frozen=True, slots=True)
class FleetGroup:
    """Machines of one kind at consecutive addresses."""

    kind: Kind
    first: int
    """Number of its first machine in the fleet."""
    count: int
    hosts: tuple[str, str]
    """First and last address."""


class SimulatedFleet:
    """Machines of mixed families on ``127.x.y.z``.

    Args:
        mix: kinds and how many of each, in the order of their addresses.
        first_host: address of the first machine; the others follow.
        time_scale: machines sleep, wake, boot and answer writes this many times faster.
        seed: of the small differences between machines and of faults by share.
        latencies: delays of the families; the packaged ones by default.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        mix: Sequence[tuple[Kind, int]],
        *,
        first_host: str = "127.16.0.1",
        time_scale: float = 1.0,
        seed: int = 0,
        latencies: Latencies | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.time_scale = time_scale
        self.machines: list[FleetMachine] = []
        self.rpc_port = 0
        self.web_port = 0
        self._latencies = latencies or load_latencies()
        self._first = _first_address(first_host, sum(count for _, count in mix))
        self._chance = random.Random(seed)
        self._servers: dict[int, AsicServer] = {}
        self._listening: list[asyncio.Server] = []
        self._active: Counter[str] = Counter()
        self._log = structlog.get_logger(__name__)
        groups: list[FleetGroup] = []
        for kind, count in mix:
            first = len(self.machines)
            times = MachineTimes.of(self._latencies.family(kind.family), time_scale)
            self.machines += [FleetMachine(first + at, kind.plate, times, clock) for at in range(count)]
            if count:
                groups.append(FleetGroup(kind, first, count, (self.host_of(first), self.host_of(first + count - 1))))
        self.groups = tuple(groups)

    # -- addresses ---------------------------------------------------------------------------------------------------

    def host_of(self, number: int) -> str:
        """Address of a machine."""
        return str(IPv4Address(self._first + number))

    def server_at(self, host: str) -> AsicServer | None:
        """The server of the machine at an address, made when it is first asked for; ``None`` where nobody stands."""
        number = int.from_bytes(socket.inet_aton(host), "big") - self._first
        return self.server(number) if 0 <= number < len(self.machines) else None

    def server(self, number: int) -> AsicServer:
        """The server of a machine."""
        server = self._servers.get(number)
        if server is None:
            kind = next(group.kind for group in self.groups if number < group.first + group.count)
            answer_s = self._latencies.family(kind.family).answer_s.value
            server = self._servers[number] = kind.make(self.machines[number], self.time_scale, answer_s)
        return server

    # -- listening ---------------------------------------------------------------------------------------------------

    async def start(self, rpc_port: int = 0, web_port: int = 0) -> None:
        """Listen for all machines; port 0 takes any free one.

        Raises:
            SimulationError: a port is taken, or the system cannot listen for the whole loopback network.
        """
        try:
            self.rpc_port = await self._listen(rpc_port, lambda server: server.rpc_connection())
            self.web_port = await self._listen(web_port, lambda server: server.web_connection())
        except SimulationError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close listeners and open connections."""
        for listening in self._listening:
            listening.close()
        self._listening.clear()
        for server in self._servers.values():
            await server.stop()

    async def _listen(self, port: int, connect: Callable[[AsicServer], asyncio.Protocol | None]) -> int:
        sock = _whole_loopback(port)
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: _Door(self, connect), sock=sock, backlog=BACKLOG)
        self._listening.append(listening)
        return int(sock.getsockname()[1])

    # -- faults ------------------------------------------------------------------------------------------------------

    def choose(self, share: float, among: Iterable[int] | None = None) -> list[int]:
        """So large a share of the machines, picked by chance, in order."""
        numbers = list(range(len(self.machines)) if among is None else among)
        return sorted(self._chance.sample(numbers, round(len(numbers) * share)))

    def fault(self, kind: str, numbers: Iterable[int], *, on: bool = True, seconds: float = 5.0) -> int:
        """Switch a fault of some machines on or off; returns how many.

        Args:
            kind: one of ``SERVER_FAULTS``, ``BODY_FAULTS``, or of ``ACTIONS``, which happen at once.
            numbers: of the machines, from 0.
            seconds: how much slower (``slow``), or how long asleep (``wakes_itself``).

        Raises:
            SimulationError: unknown kind or machine, or seconds out of range; nothing is changed then.
        """
        chosen = list(numbers)
        if kind not in (*SERVER_FAULTS, *BODY_FAULTS, *ACTIONS):
            known = ", ".join((*SERVER_FAULTS, *BODY_FAULTS, *ACTIONS))
            raise SimulationError(f"fault: saw {kind!r}, expected one of {known}")
        if wrong := [number for number in chosen if not 0 <= number < len(self.machines)]:
            raise SimulationError(f"machine {wrong[0]}: expected 0 to {len(self.machines) - 1}")
        if not 0 <= seconds <= 3600:
            raise SimulationError(f"seconds: saw {seconds:g}, expected 0 to 3600")
        for number in chosen:
            self._switch(kind, number, on, seconds)
        if kind not in ACTIONS:
            self._active[kind] += len(chosen) if on else -len(chosen)
        return len(chosen)

    def _switch(self, kind: str, number: int, on: bool, seconds: float) -> None:
        machine = self.machines[number]
        match kind:
            case "dead":
                machine.set_powered(not on)
            case "reboot":
                machine.reboot()
            case "pool_lost":
                machine.pool_lost = on
            case "mode_only":
                machine.mode_only = on
            case "refuses_sleep":
                machine.body.refuses_sleep = on
            case "wakes_itself":
                machine.body.wakes_itself_s = seconds if on else None
            case "slow":
                self.server(number).faults.slow_s = seconds if on else 0.0
            case _:
                setattr(self.server(number).faults, kind, on)

    # -- what is true ------------------------------------------------------------------------------------------------

    def power_w(self) -> float:
        """What all machines draw now, as a meter above them would see it."""
        return sum(machine.power_w() for machine in self.machines)

    def state(self) -> Mapping[str, object]:
        """What is true in the fleet, as plain JSON values."""
        states = Counter(machine.state for machine in self.machines)
        commands: Counter[str] = Counter()
        for server in self._servers.values():
            commands.update(server.commands)
        return {
            "machines": len(self.machines),
            "power_w": round(self.power_w()),
            "states": {state.value: states[state] for state in MachineState},
            "connections": sum(len(server.open_connections) for server in self._servers.values()),
            "commands": dict(sorted(commands.items())),
            "groups": self.addresses(),
        }

    def addresses(self) -> list[dict[str, object]]:
        """Where the groups answer, in the words of a site file's miner group."""
        return [
            {
                "family": group.kind.family,
                "model": group.kind.plate.model,
                "count": group.count,
                "first": group.first,
                "rpc": f"{group.hosts[0]}-{group.hosts[1]}:{self.rpc_port}",
                "http": f"{group.hosts[0]}-{group.hosts[1]}:{self.web_port}" if group.kind.has_web else None,
                "login": group.kind.login,
            }
            for group in self.groups
        ]


class _Door(asyncio.Protocol):
    """Takes a connection and hands it to the machine at whose address it arrived."""

    def __init__(self, fleet: SimulatedFleet, connect: Callable[[AsicServer], asyncio.Protocol | None]) -> None:
        self._fleet = fleet
        self._connect = connect

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        host, peer = transport.get_extra_info("sockname")[0], transport.get_extra_info("peername")[0]
        server = self._fleet.server_at(host) if str(peer).startswith("127.") else None
        protocol = None if server is None else self._connect(server)
        if protocol is None:
            transport.abort()
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def _first_address(first_host: str, count: int) -> int:
    try:
        first = IPv4Address(first_host)
    except AddressValueError as error:
        raise SimulationError(f"first address: saw {first_host!r}, expected one such as 127.16.0.1") from error
    if count < 1 or first not in LOOPBACK or int(first) + count > int(LOOPBACK.broadcast_address):
        raise SimulationError(
            f"{count} machines from {first}: expected at least one, all on loopback (127.0.0.1 to 127.255.255.254)"
        )
    return int(first)


def _whole_loopback(port: int) -> socket.socket:
    """A listening socket for every address of the loopback network and for none besides.

    Bound to the loopback *device*: what arrives over any other is not seen by it, whatever the address says.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        sock.bind(("0.0.0.0", port))
    except (AttributeError, OSError) as error:
        sock.close()
        raise SimulationError(
            f"port {port} cannot be listened on for the whole loopback network ({error}); "
            "Linux 5.7 or newer and a free port expected"
        ) from error
    sock.setblocking(False)
    return sock
