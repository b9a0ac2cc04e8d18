"""The library in a process of its own: what it may do, and what becomes of a child that does not behave.

Children are real processes. Most run a stand-in for the library or for the child's program, because the subject is the
fence and the supervision; the library itself reads a simulated machine where an environment that has it is at hand.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from drivers.asic.foreign.answers import miner_status
from drivers.asic.foreign.process import ExtraMissing, ForeignProcess, Limits
from drivers.asic.foreign.reader import ForeignMiner
from drivers.capabilities import MinerReader, Sleeper
from drivers.errors import BadAnswer, NoAnswer, NoConnection
from simulator.devices.asic import LuxosMiner
from simulator.devices.models import StandaloneMachine

ROOT = Path(__file__).parents[2]
QUICK = Limits(pause_s=0.0, max_pause_s=0.0, grace_s=0.5)
Make = Callable[..., ForeignProcess]
LOCKED = "pyasic>=0.79,<0.80"

FRAMES = """
import json, sys, time
def say(message):
    body = json.dumps(message).encode()
    sys.stdout.buffer.write(len(body).to_bytes(4, "big") + body)
    sys.stdout.buffer.flush()
def hear():
    head = sys.stdin.buffer.read(4)
    return json.loads(sys.stdin.buffer.read(int.from_bytes(head, "big"))) if len(head) == 4 else None
def good(request, **more):
    say({"id": request["id"], "status": {"kind": "StandIn", "model": "S21", "hashrate_ths": 200.0, **more}})
say({"hello": 1, "version": "stand-in"})
"""

LIBRARY = """
import asyncio, socket
__version__ = "0.0"

class Data:
    firmware, model, mac, serial_number = "Stand In", "S19", "02:00:00:00:00:09", "SN9"
    pools, fans, hashboards, errors = [], [], [], []
    is_mining = True

class StandIn:
    async def stop_mining(self): return True
    async def get_data(self, exclude):
        return await asks(self)

async def get_miner(host):
    miner = StandIn()
    miner.ip = host
    return miner
"""


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes processes whose child runs a stand-in program, or the real program over a stand-in library."""
    async with AsyncExitStack() as stack:

        def one(program: str | None = None, *, library: str | None = None, limits: Limits = QUICK) -> ForeignProcess:
            options: dict[str, object] = {}
            if program is not None:
                (tmp_path / "stand_in.py").write_text(FRAMES + textwrap.dedent(program))
                options["module"] = "stand_in"
            if library is not None:
                (tmp_path / "pyasic.py").write_text(LIBRARY + textwrap.dedent(library))
            process = ForeignProcess(limits=limits, path=(tmp_path, ROOT), **options)  # type: ignore[arg-type]  # options
            stack.push_async_callback(process.aclose)
            return process

        yield one


async def test_a_machine_is_read_and_marked_as_read_by_the_library(make: Make) -> None:
    process = make(library="async def asks(miner): print('noise'); return Data()")
    miner = ForeignMiner(process, "127.0.0.1")
    status = await miner.status()
    assert isinstance(miner, MinerReader)
    assert not isinstance(miner, Sleeper)
    assert (status.family, status.model, status.serial, status.mac) == (
        "pyasic:stand-in",
        "S19",
        "SN9",
        "02:00:00:00:00:09",
    )
    assert (status.power_w, status.hashrate_ths, status.sleeping) == (None, None, None)


async def test_what_a_machine_is_is_found_out_again_only_after_a_failure(make: Make) -> None:
    process = make(
        library="""
        found = 0
        plain = get_miner
        async def get_miner(host):
            global found
            found += 1
            return await plain(host)
        calls = 0
        async def asks(miner):
            global calls
            calls += 1
            if calls == 3:
                raise ValueError("failed")
            Data.model = f"found {found}"
            return Data()
        """
    )
    assert [(await process.read("127.0.0.1")).model for _ in range(2)] == ["found 1", "found 1"]
    with pytest.raises(BadAnswer):
        await process.read("127.0.0.1")
    assert (await process.read("127.0.0.1")).model == "found 2"


async def test_without_the_library_the_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "pyasic.py").write_text("raise ImportError('no module named pyasic')")
    async with ForeignProcess(limits=QUICK, path=(tmp_path, ROOT)) as process:
        with pytest.raises(ExtraMissing, match=r"tizgin\[pyasic\]"):
            await process.read("127.0.0.1")


async def test_a_host_that_is_a_name_is_refused_before_anything_starts(make: Make) -> None:
    process = make("")
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        await process.read("miner.example.com")
    assert process.counters.started == 0


# the fence ----------------------------------------------------------------------------------------------------------

OUTSIDE = {
    "connect": "socket.create_connection(('127.0.0.2', PORT), 2)",
    "asyncio": "await asyncio.open_connection('127.0.0.2', PORT)",
    "name": "socket.getaddrinfo('pool.example.com', 443)",
    "name-in-a-thread": "await asyncio.get_running_loop().getaddrinfo('pool.example.com', 443)",
    "datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.2', PORT))",
    "unix": "socket.socket(socket.AF_UNIX).connect('/run/x')",
    "listen": "socket.socket().bind(('127.0.0.1', 0))",
    "program": "__import__('subprocess').run(['true'])",
    "thread-to-the-machine-of-nobody": (
        "await asyncio.get_running_loop().run_in_executor(None, socket.create_connection, ('127.0.0.2', PORT), 2)"
    ),
}


@pytest.mark.parametrize("call", OUTSIDE.values(), ids=OUTSIDE)
async def test_the_library_can_speak_to_nobody_but_the_machine_asked(call: str, make: Make) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.2", 0)) as stranger:
        port = stranger.getsockname()[1]
        process = make(library=f"PORT = {port}\nasync def asks(miner):\n    {call}\n    return Data()")
        with pytest.raises(BadAnswer, match=r"is not the machine|is no address|nothing listens|no other program"):
            await process.read("127.0.0.1")
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.append(stranger.accept()[0].recv(1))
    assert heard == []


async def test_two_requests_at_once_cannot_use_each_others_machine(make: Make) -> None:
    """Each request has a fence of its own, also while the other runs."""
    with socket.create_server(("127.0.0.1", 0)) as machine:
        port = machine.getsockname()[1]
        process = make(
            library=f"""
            both = []
            async def asks(miner):
                both.append(miner.ip)
                while len(both) < 2:
                    await asyncio.sleep(0.01)
                await asyncio.open_connection("127.0.0.1", {port})
                return Data()
            """
        )
        allowed, refused = await asyncio.gather(
            process.read("127.0.0.1"), process.read("127.0.0.2"), return_exceptions=True
        )
    assert getattr(allowed, "serial", None) == "SN9"
    assert isinstance(refused, BadAnswer)
    assert "127.0.0.1" in str(refused)


async def test_the_librarys_own_commands_are_taken_away(make: Make) -> None:
    process = make(library="async def asks(miner):\n    await miner.stop_mining()\n    return Data()")
    with pytest.raises(BadAnswer, match="stop_mining: this process only reads"):
        await process.read("127.0.0.1")


async def test_the_child_writes_no_file_and_sees_no_secret(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIZGIN_ASIC_MAIN", "root:secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.2:1")
    target = tmp_path / "written"
    process = make(
        library=f"""
        import os
        async def asks(miner):
            with open({str(target)!r}, "wb", buffering=0) as file:
                try:
                    file.write(b"x")
                except OSError:
                    Data.model = " ".join(sorted(os.environ))
            return Data()
        """
    )
    status = await process.read("127.0.0.1")
    assert target.read_bytes() == b""
    assert status.model is not None
    assert "TIZGIN" not in status.model
    assert "PROXY" not in status.model


async def test_a_child_that_takes_too_much_memory_ends_and_is_started_anew(make: Make) -> None:
    process = make(
        library="""
        async def asks(miner):
            if miner.ip == "127.0.0.66":
                bytearray(1 << 31)
            return Data()
        """
    )
    with pytest.raises(NoConnection, match="ended"):
        await process.read("127.0.0.66")
    assert (await process.read("127.0.0.1")).serial == "SN9"
    assert process.counters.started == 2


# supervision --------------------------------------------------------------------------------------------------------


async def test_a_slow_machine_costs_its_own_deadline_and_not_the_process(make: Make) -> None:
    process = make(
        library="""
        async def asks(miner):
            if miner.ip == "127.0.0.66":
                await asyncio.sleep(3600)
            return Data()
        """
    )
    slow, quick = await asyncio.gather(
        process.read("127.0.0.66", deadline_s=0.3), process.read("127.0.0.1"), return_exceptions=True
    )
    assert isinstance(slow, NoAnswer)
    assert getattr(quick, "serial", None) == "SN9"
    assert (process.counters.started, process.counters.killed) == (1, 0)


async def test_a_stuck_child_is_killed_and_the_next_request_has_a_new_one(make: Make, tmp_path: Path) -> None:
    process = make(f"""
        import os
        first = not os.path.exists({str(tmp_path / "once")!r})
        open({str(tmp_path / "once")!r}, "w").close()
        while (request := hear()) is not None:
            if first:
                while True: pass
            good(request)
        """)
    with pytest.raises(NoAnswer, match="stuck"):
        await process.read("127.0.0.1", deadline_s=0.1)
    assert (await process.read("127.0.0.1")).model == "S21"
    assert (process.counters.started, process.counters.killed) == (2, 1)


async def test_a_stuck_child_is_found_also_where_the_asker_gave_up(make: Make) -> None:
    process = make("hear()\nwhile True: pass")
    asking = asyncio.create_task(process.read("127.0.0.1", deadline_s=0.5))
    async with asyncio.timeout(20):
        while not process.open_requests:  # noqa: ASYNC110 - nothing to wait on
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        while process.counters.killed == 0:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert process.pid is None


async def test_an_answer_after_the_asker_gave_up_is_no_offence(make: Make) -> None:
    process = make("""
        while (request := hear()) is not None:
            if request["host"] == "127.0.0.66":
                kept = request
                continue
            good(kept)
            good(request)
        """)
    asking = asyncio.create_task(process.read("127.0.0.66", deadline_s=60))
    async with asyncio.timeout(20):
        while process.counters.started == 0 or not process.open_requests:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (await process.read("127.0.0.1")).model == "S21"
    assert (process.counters.started, process.counters.killed) == (1, 0)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("hear(); sys.exit(1)", id="dies"),
        pytest.param("hear(); os_kill()", id="breaks"),
        pytest.param("hear()\nwhile True: say({'id': 999_999_999, 'status': {}})", id="floods-with-answers"),
        pytest.param("hear()\nwhile True: sys.stdout.buffer.write(b'x' * 65536)", id="floods-with-bytes"),
        pytest.param(
            "hear(); sys.stdout.buffer.write(b'\\xff\\xff\\xff\\xff'); sys.stdout.flush(); time.sleep(600)", id="huge"
        ),
        pytest.param(
            "hear(); sys.stdout.buffer.write(b'\\0\\0\\0\\2[]'); sys.stdout.flush(); time.sleep(600)", id="no-object"
        ),
        pytest.param("say({'hello': 2}); say({'id': 1})", id="speaks-out-of-turn"),
    ],
)
async def test_a_child_that_misbehaves_is_ended_and_its_askers_told(program: str, make: Make) -> None:
    process = make(program)
    with pytest.raises(NoConnection, match=r"ended|strange|protocol"):
        await process.read("127.0.0.1", deadline_s=30)
    await process.aclose()
    assert process.open_requests == 0


async def test_failing_starts_are_not_repeated_at_once(make: Make) -> None:
    process = make("sys.exit(1)", limits=Limits(pause_s=600.0, max_pause_s=600.0))
    with pytest.raises(NoConnection):
        await process.read("127.0.0.1")
    with pytest.raises(NoConnection, match="the next start is in"):
        await process.read("127.0.0.1")
    assert process.counters.started == 1


async def test_a_used_up_child_is_replaced(make: Make) -> None:
    process = make("while (request := hear()) is not None: good(request)", limits=Limits(max_requests=2, pause_s=0.0))
    for _ in range(5):
        assert (await process.read("127.0.0.1")).hashrate_ths == 200.0
    assert process.counters.started == 3


async def test_closing_ends_the_child_and_whoever_waits(make: Make) -> None:
    process = make("hear()\ntime.sleep(600)")
    asking = asyncio.create_task(process.read("127.0.0.1", deadline_s=60))
    async with asyncio.timeout(20):
        while not process.open_requests:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    pid = process.pid
    assert pid is not None
    await process.aclose()
    with pytest.raises(NoConnection):
        await asking
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(NoConnection, match="closed"):
        await process.read("127.0.0.1")


PARENT = """
import asyncio, sys
from pathlib import Path
from drivers.asic.foreign.process import ForeignProcess
async def main():
    async with ForeignProcess(path=(Path(sys.argv[1]), Path(sys.argv[2]))) as process:
        asking = asyncio.create_task(process.read("127.0.0.1", deadline_s=600))
        while not process.open_requests:
            await asyncio.sleep(0.01)
        print(process.pid, file=sys.stderr, flush=True)
        await asking
asyncio.run(main())
"""


async def test_a_stuck_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    (tmp_path / "pyasic.py").write_text(LIBRARY + "async def asks(miner):\n    while True: pass\n")
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), str(ROOT), stdout=DEVNULL, stderr=PIPE, cwd=ROOT
    )
    assert parent.stderr is not None
    async with asyncio.timeout(60):
        child = int(await parent.stderr.readline())
        assert _runs(child)
        parent.kill()
        await parent.wait()
        while _runs(child):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nothing_that_a_child_says_is_believed() -> None:
    status = miner_status(
        {
            "kind": "Х" * 500,
            "firmware_name": ["list"],
            "model": 7,
            "mac": "nonsense",
            "serial": {"a": 1},
            "uptime_s": -5,
            "hashrate_ths": "nan",
            "expected_ths": 0,
            "power_w": -1,
            "fans_rpm": [1, "x", None, -3],
            "boards": "none",
            "pools": [{"url": 1, "active": "yes"}, 5],
            "errors": [None, "E1"],
        },
        1.0,
    )
    assert status.family == "pyasic:unknown"
    assert (status.model, status.mac, status.serial, status.uptime_s) == (None, None, None, None)
    assert (status.hashrate_ths, status.hashrate_nominal_ths, status.power_w, status.power_source) == (
        None,
        None,
        None,
        "none",
    )
    assert status.fans_rpm == (1,)
    assert (status.pools[0].url, status.pools[0].active) == (None, None)
    assert status.errors == ("E1",)


# the library itself -------------------------------------------------------------------------------------------------


def _python_with_pyasic() -> str | None:
    given = os.environ.get("TIZGIN_TEST_PYASIC_PYTHON")
    return given or (sys.executable if find_spec("pyasic") is not None else None)


async def _reads_a_simulated_machine(python: str) -> None:
    host = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250}.7"  # the library knows one port alone
    miner = LuxosMiner(StandaloneMachine(time_scale=10_000.0), time_scale=10_000.0)
    await miner.start(host=host, rpc_port=4028)
    try:
        async with ForeignProcess(python=python) as process:
            await process.read(host, deadline_s=30)
            status = await process.read(host, deadline_s=30)
            with pytest.raises((NoConnection, NoAnswer)):
                await process.read("127.250.250.250", deadline_s=10)
    finally:
        await miner.stop()
    assert status.family.startswith("pyasic:lux")
    assert status.hashrate_ths is not None
    assert status.hashrate_ths > 0
    assert status.pools
    assert not {"curtail", "logon", "reboot", "profileset"} & set(miner.commands)


async def test_the_library_itself_reads_a_simulated_machine() -> None:
    python = _python_with_pyasic()
    if python is None:
        pytest.skip(
            "left out: pyasic is not installed here (TIZGIN_TEST_PYASIC_PYTHON names an interpreter that has it)"
        )
    await _reads_a_simulated_machine(python)


@pytest.fixture
def fresh_python(tmp_path: Path) -> Path:
    """An interpreter of its own with the library alone."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    python = tmp_path / "v" / "bin" / "python"
    try:
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "v")], check=True, timeout=100)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), LOCKED], check=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"left out: pyasic cannot be installed here: {error}")
    return python


@pytest.mark.long
@pytest.mark.timeout(500)
async def test_the_library_fresh_from_its_registry_reads_a_simulated_machine(fresh_python: Path) -> None:
    await _reads_a_simulated_machine(str(fresh_python))
