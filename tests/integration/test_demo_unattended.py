"""The demo from start to end, as a person starts it: real processes, real protocols, real databases."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tizgin.demo.processes import environment

COMMAND = [sys.executable, "-m", "tizgin", "demo"]


def processes_of(folder: Path) -> list[str]:
    """Command lines of running processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("arguments", [["--asics"], ["--unattended"], ["--report", "r.json"], ["--sites", "0"]])
def test_wrong_use_is_told_and_exits_with_2(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, env=environment(), check=False)
    assert done.returncode == 2, done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.timeout(400)
def test_unattended_run_obeys_refuses_loses_nothing_and_is_verified(tmp_path: Path) -> None:
    report, data = tmp_path / "report.json", tmp_path / "data"
    size = ["--sites", "2", "--asics", "24"]
    done = subprocess.run(
        [*COMMAND, "--unattended", "--report", str(report), "--data-dir", str(data), *size],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    body = json.loads(report.read_text(encoding="utf-8"))
    assert (body["sites"], body["asics"], body["meters"]) == (2, 24, 16)
    assert (body["lost"], body["duplicated"]) == (0, 0)
    assert body["telemetry_rows"] > body["readings"] > 500
    orders = {order["action"]: order for order in body["orders"]}
    assert set(orders) == {"limit", "stop"}
    for order in orders.values():
        assert order["state"] == "done"
        assert order["restored"] is True
        assert order["floor_kw"] <= order["after_kw"] <= order["limit_kw"] < order["before_kw"]
        assert 0 <= order["accepted_ms"] <= order["first_output_ms"] <= order["confirmed_ms"]
    assert orders["stop"]["escalated"], "a stop of these sites cannot be reached by sleep alone"
    assert len(orders["stop"]["signed_by"]) == 2
    assert {entry["why"] for entry in body["refused"]} == {"unknown_key", "bad_signature", "replay", "expired"}
    assert [run["exit"] for run in body["verifiers"]] == [0, 0]
    assert all(run["grade_a"] > 0 and len(run["independent"]) == 2 for run in body["verifiers"])
    assert processes_of(tmp_path) == []
    # The files named in the report outlive the run and satisfy the verifier by itself.
    said = body["verifier"]
    again = subprocess.run(
        [sys.executable, "-m", "verifier", said["bundle"], "--trust", said["trust"], "--period", said["period"]],
        capture_output=True,
        env=environment(),
        check=False,
    )
    assert again.returncode == 0, again.stdout
    assert b" A," not in again.stdout.partition(b"Grades")[0], "without the grid operator's own readings nothing is A"


@pytest.mark.long
@pytest.mark.timeout(200)
def test_live_demo_survives_a_killed_agent_and_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        demo = subprocess.Popen(
            [*COMMAND, "--sites", "1", "--asics", "8", "--port", "0", "--data-dir", str(data)],
            stdout=stdout,
            stderr=stderr,
            env=environment(),
        )
    try:
        wait_for(lambda: b"until Ctrl-C" in err.read_bytes() or demo.poll() is not None, "the demo runs", 120)
        assert demo.poll() is None, err.read_text()[-3000:]
        found = re.search(r"agent: pid (\d+)", out.read_text())
        assert found is not None
        os.kill(int(found[1]), signal.SIGKILL)
        wait_for(lambda: b"runs again as pid" in err.read_bytes(), "the agent is started again", 30)
        began = time.monotonic()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(15) == 0
        assert time.monotonic() - began < 6
    finally:
        demo.kill()
        demo.wait(10)
    wait_for(lambda: not processes_of(data), "no process is left", 5)
