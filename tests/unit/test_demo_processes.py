"""Children of the demo: their readiness, their end, and that none outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tizgin.demo.errors import DemoError
from tizgin.demo.processes import Processes, environment, read_json

SLEEPER = "import time; print('{\"port\": 7}', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(60)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_a_child_is_ready_when_it_says_so_and_is_stopped_when_the_demo_ends(tmp_path: Path) -> None:
    async with Processes(tmp_path) as processes:
        child = await processes.start("one", python(SLEEPER), cwd=tmp_path)
        assert await child.ready(child.out, timeout_s=10) == {"port": 7}
        assert processes.ended() is None
    assert not child.running
    assert child.process.returncode == -signal.SIGTERM


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    async with Processes(tmp_path) as processes:
        child = await processes.start("stubborn", python(STUBBORN), cwd=tmp_path)
        await child.ready(child.out, timeout_s=10)
        began = time.monotonic()
        assert await child.stop(within_s=0.3) == -signal.SIGKILL
        assert time.monotonic() - began < 3


async def test_a_child_that_ends_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    async with Processes(tmp_path) as processes:
        child = await processes.start("early", python("import sys; sys.exit('no such meter')"), cwd=tmp_path)
        with pytest.raises(DemoError, match=r"early ended with 1 before it was up(.|\n)*no such meter"):
            await child.ready(tmp_path / "never", timeout_s=10)
        assert processes.ended() is child


async def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    async with Processes(tmp_path) as processes:
        status, out = await processes.run("good", python("print('42')"), cwd=tmp_path, timeout_s=10)
        assert (status, out.strip()) == (0, "42")
        with pytest.raises(DemoError, match=r"bad: exit 3\nwrong"):
            await processes.run(
                "bad", python("import sys; sys.stderr.write('wrong'); sys.exit(3)"), cwd=tmp_path, timeout_s=10
            )
        with pytest.raises(DemoError, match=r"slow: not done within"):
            await processes.run("slow", python("import time; time.sleep(60)"), cwd=tmp_path, timeout_s=0.3)


def test_no_child_outlives_a_demo_that_is_killed(tmp_path: Path) -> None:
    """kill -9 of the supervisor runs no clean-up; the kernel's parent-death signal does it."""
    code = f"""
        import asyncio, sys, time
        from pathlib import Path
        from tizgin.demo.processes import Processes
        async def main():
            async with Processes(Path({str(tmp_path)!r})) as processes:
                child = await processes.start("one", [sys.executable, "-c", {SLEEPER!r}], cwd=Path({str(tmp_path)!r}))
                await child.ready(child.out, timeout_s=10)
                print(child.process.pid, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    supervisor = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True, env=environment())
    assert supervisor.stdout is not None
    child = int(supervisor.stdout.readline())
    assert alive(child)
    supervisor.kill()
    supervisor.wait(10)
    supervisor.stdout.close()
    deadline = time.monotonic() + 5
    while alive(child):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.02)


def test_readiness_is_one_json_object_or_the_first_line_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ready"
    assert read_json(file) is None
    for text, expected in (("", None), ('{"a": ', None), ("[1]", None), ('{"a": 1}\nmore', {"a": 1})):
        file.write_text(text)
        assert read_json(file) == expected


async def test_leaving_by_an_error_stops_everything_too(tmp_path: Path) -> None:
    async def fail() -> None:
        async with Processes(tmp_path) as processes:
            child = await processes.start("one", python(SLEEPER), cwd=tmp_path)
            await child.ready(child.out, timeout_s=10)
            pids.append(child.process.pid)
            raise DemoError("something else failed")

    pids: list[int] = []
    with pytest.raises(DemoError, match="something else"):
        await asyncio.create_task(fail())
    assert not alive(pids[0])
