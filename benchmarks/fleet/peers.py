"""Other people's libraries, each in an environment of its own, made once and kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PYASIC, PYASIC_RS = "pyasic==0.79.0", "pyasic_rs==0.8.6"
SCRIPTS = {PYASIC: "peer_pyasic.py", PYASIC_RS: "peer_pyasic_rs.py"}
INSTALL_S, RUN_S = 600, 300


class PeerMissing(Exception):
    """A peer cannot be measured here; the message says why."""


def cache_folder() -> Path:
    """Where environments of peers are kept: ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tizgin-benchmarks"


def python_with(requirement: str) -> Path:
    """The Python of an environment that holds one pinned requirement.

    Raises:
        PeerMissing: it cannot be installed.
    """
    folder = cache_folder() / f"{requirement.replace('==', '-')}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists():
        return python
    try:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement],
            check=True,
            timeout=INSTALL_S,
            stdout=sys.stderr,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise PeerMissing(f"{requirement} cannot be installed ({type(error).__name__})") from error
    done.touch()
    return python


def measured(requirement: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a peer's script; what it prints, by name of the peer.

    Raises:
        PeerMissing: it is not there, or fails.
    """
    python = python_with(requirement)
    script = Path(__file__).with_name(SCRIPTS[requirement])
    try:
        done = subprocess.run([python, script, *arguments], check=False, timeout=RUN_S, capture_output=True, text=True)
    except subprocess.TimeoutExpired as error:
        raise PeerMissing(f"{requirement}: not finished within {RUN_S} s") from error
    if done.returncode or not done.stdout.strip():
        raise PeerMissing(f"{requirement}: {done.stderr.strip()[-300:] or f'exit {done.returncode}'}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
