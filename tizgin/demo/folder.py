"""The demo's data folder: made fresh at each start, and only ever removed where the demo made it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tizgin.demo.errors import DemoError

MARKER = ".tizgin-demo"
_TEXT = "Made by 'tizgin demo', which removes this folder and everything in it at its next start.\n"


@dataclass(frozen=True, slots=True)
class SiteFolder:
    """Files of one site."""

    root: Path
    site: str

    @property
    def config(self) -> Path:
        """The site file."""
        return self.root / f"{self.site}.yaml"

    @property
    def state(self) -> Path:
        """The agent's state: keys, ledger, outbox."""
        return self.root / "state"

    @property
    def tls(self) -> Path:
        """Certificates of the site."""
        return self.root / "tls"

    @property
    def ready(self) -> Path:
        """Written by the agent when it runs."""
        return self.root / "agent.ready.json"


@dataclass(frozen=True, slots=True)
class Folder:
    """Where everything of one demo lies. Each party has a folder of its own, as it would have a computer of its own."""

    root: Path

    @property
    def registrar(self) -> Path:
        """The registrar's computer."""
        return self.root / "registrar"

    @property
    def dispatcher(self) -> Path:
        """The grid operator's computer: dispatchers' keys."""
        return self.root / "dispatcher"

    @property
    def central(self) -> Path:
        """Central's computer."""
        return self.root / "central"

    @property
    def witness(self) -> Path:
        """The system operator's witness."""
        return self.root / "witness"

    @property
    def logs(self) -> Path:
        """Logs of all processes."""
        return self.root / "logs"

    @property
    def register(self) -> Path:
        """The signed register."""
        return self.registrar / "keys.json"

    @property
    def central_config(self) -> Path:
        """Settings of central."""
        return self.central / "central.yaml"

    @property
    def central_data(self) -> Path:
        """Stores of central."""
        return self.central / "data"

    def site(self, site: str) -> SiteFolder:
        """The computer of one site, with its chief engineer's key."""
        return SiteFolder(self.root / "sites" / site, site)


def make_fresh(root: Path) -> Folder:
    """An empty data folder.

    Raises:
        DemoError: it exists and is not a demo's, or cannot be made.
    """
    try:
        if root.exists():
            if not root.is_dir() or (any(root.iterdir()) and not (root / MARKER).is_file()):
                raise DemoError(
                    f"{root}: exists and was not made by the demo (no {MARKER} in it); it is left alone: "
                    "give another --data-dir"
                )
            shutil.rmtree(root)
        root.mkdir(parents=True, mode=0o700)
        (root / MARKER).write_text(_TEXT, encoding="utf-8")
        folder = Folder(root.resolve())
        for part in (folder.registrar, folder.dispatcher, folder.central, folder.witness, folder.logs):
            part.mkdir(mode=0o700)
    except OSError as error:
        raise DemoError(f"{root}: {error.strerror or error}; give another --data-dir") from error
    return folder


def remove(folder: Folder) -> None:
    """Remove a demo's folder; anything else is left alone."""
    if (folder.root / MARKER).is_file():
        shutil.rmtree(folder.root, ignore_errors=True)


class _PlainDumper(yaml.SafeDumper):
    """Without anchors and aliases: files that people sign are refused with them."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def write_yaml(path: Path, data: Mapping[str, Any]) -> None:
    """Plain data as a YAML file that a person can read and sign."""
    text = yaml.dump(dict(data), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=120)
    path.write_text(text, encoding="utf-8")


def write_secret(path: Path, text: str) -> None:
    """A new file that its owner alone can read.

    Raises:
        OSError: it exists already, or cannot be written.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
