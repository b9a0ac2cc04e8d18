"""What a dead box leaves to the next one: configuration, papers, what was learned. Never a key, never the ledger.

The archive is a zip: ``manifest.json`` (``v``, ``site``, ``epoch`` of the old box, ``made_at``, ``tool``,
``site_file``, ``files`` name → SHA-256, ``by_hand``: secrets that it does not hold, ``tags`` that hung) and the files
named in it: ``site/…`` beside the site file, ``state/…`` of the state folder, ``acts/…`` signed acts as they were, and
``commissioning/…``: for each commissioning act in force what it proved, to be signed again for the next epoch.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from agent.inventory import accredited, register
from config.site import Site
from wire.acts import CommissioningAct, open_act
from wire.errors import WireError
from wire.names import check_epoch, check_site

MAX_FILE = 64 * 1024 * 1024
MAX_FILES = 2000
STATE_FILES = ("learned.json", register.FILE, accredited.FILE)
_NAME = re.compile(r"(site|state|acts|commissioning)/[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SITE_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Backup:
    """What an archive says and holds."""

    site: str
    epoch: str
    made_at: int
    site_file: str
    by_hand: tuple[str, ...]
    tags: Mapping[str, str]
    files: Mapping[str, bytes]


def collect(site_file: Path, site: Site, now_ms: int) -> Backup:
    """Gather everything; the agent may run meanwhile.

    Raises:
        AgentError: the site file or the ledger cannot be read.
    """
    base = site_file.resolve().parent
    state = base / site.agent.state_dir
    files = {f"site/{site_file.name}": _read(site_file)}
    for name in sorted(_beside(base, site)):
        files[f"site/{name}"] = _read(base / name)
    for name in STATE_FILES:
        if (state / name).exists():
            files[f"state/{name}"] = _read(state / name)
    epoch, tags, papers = _of_ledger(state / "ledger.db")
    for name, data in files.items():
        if b"PRIVATE KEY" in data:
            raise AgentError(f"{name}: holds a private key, and none belongs into a backup; take it out of that file")
    return Backup(site.site.id, epoch, now_ms, site_file.name, tuple(sorted(_by_hand(site))), tags, files | papers)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise AgentError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise AgentError(f"{path}: larger than {MAX_FILE >> 20} MB")
    return data


def _beside(base: Path, site: Site) -> set[str]:
    """Files beside the site file that are no secret: the authority's certificate, profiles of one's own."""
    named = {device.profile for device in site.devices if device.profile.endswith((".yaml", ".yml"))}
    if site.uplink is not None:
        named.add(site.uplink.ca_file)
    return {name for name in named if _SITE_FILE.fullmatch(name) and (base / name).is_file()}


def _by_hand(site: Site) -> set[str]:
    """Secrets that the site file names: they are carried apart."""
    found = {c.password_file for c in site.credentials.values() if c.password_file is not None}
    for link in site.links:
        tls = getattr(link, "tls", None)
        if tls is not None and getattr(tls, "key_file", None) is not None:
            found.add(tls.key_file)
    if site.keys.log.pkcs11 is not None:
        found.add(site.keys.log.pkcs11.pin_file)
    return {str(name) for name in found}


def _of_ledger(path: Path) -> tuple[str, dict[str, str], dict[str, bytes]]:
    """Epoch, tags and acts; nothing else of the ledger leaves it."""
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
    except sqlite3.Error as error:
        raise AgentError(f"{path}: cannot be opened: {error}; is this the machine of the agent?") from None
    try:
        epoch = str(db.execute("SELECT value FROM meta WHERE key='epoch'").fetchone()[0])
        tags = {str(o): f"{who}: {why}" for o, who, why in db.execute("SELECT object, who, reason FROM tag")}
        acts = {str(i): bytes(doc) for i, doc in db.execute("SELECT id, doc FROM act")}
        rows = db.execute("SELECT output, fingerprint, act_id FROM commissioned")
        armed = {str(output): (str(fingerprint), str(act)) for output, fingerprint, act in rows}
    except (sqlite3.Error, TypeError) as error:
        raise AgentError(f"{path}: cannot be read: {error}") from None
    finally:
        db.close()
    files = {f"acts/{name}.json": raw for name, raw in acts.items()}
    for name, raw in acts.items():
        try:
            act, _ = open_act(raw)
        except WireError as error:
            raise AgentError(f"{path}: act {name}: {error}") from None
        if isinstance(act, CommissioningAct):
            tests = [t.model_dump(mode="json") for t in act.outputs if armed.get(t.output) == (t.fingerprint, name)]
            if tests:
                # The date of the proof stays: signing it again makes it no younger.
                doc = {"site": act.site, "epoch": act.epoch, "at": act.at, "outputs": tests, "note": act.note}
                files[f"commissioning/{name}.json"] = _json({k: v for k, v in doc.items() if v is not None})
    return epoch, tags, files


def _json(doc: Any) -> bytes:
    return (json.dumps(doc, indent=1, ensure_ascii=False) + "\n").encode()


def write(backup: Backup, out: Path, tool: str) -> None:
    """The archive, readable by its owner only; whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    manifest = {
        "v": 1,
        "site": backup.site,
        "epoch": backup.epoch,
        "made_at": backup.made_at,
        "tool": tool,
        "site_file": backup.site_file,
        "by_hand": list(backup.by_hand),
        "tags": dict(backup.tags),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(backup.files.items())},
    }
    part = out.with_name(f".{out.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", _json(manifest))
        for name, data in sorted(backup.files.items()):
            archive.writestr(name, data)
    part.replace(out)


def read(path: Path) -> Backup:
    """An archive, every file of it held against its manifest.

    Raises:
        AgentError: not such an archive, or one that was changed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            doc = json.loads(_member(archive, "manifest.json"))
            names = set(archive.namelist()) - {"manifest.json"}
            if not isinstance(doc, dict) or doc.get("v") != 1 or set(doc["files"]) != names or len(names) > MAX_FILES:
                raise AgentError(f"{path}: not an archive of 'tizgin agent backup', or files are missing or added")
            files = {name: _member(archive, name) for name in sorted(names)}
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, RecursionError, NotImplementedError) as error:
        raise AgentError(f"{path}: cannot be read: {error}; expected an archive of 'tizgin agent backup'") from None
    for name, data in files.items():
        if not _NAME.fullmatch(name):
            raise AgentError(f"{path}: holds {name[:80]!r}, which has no place in a backup")
        if hashlib.sha256(data).hexdigest() != doc["files"][name]:
            raise AgentError(f"{path}: {name} is not what the manifest says")
    try:
        found = Backup(
            check_site(doc["site"]),
            check_epoch(doc["epoch"]),
            int(doc["made_at"]),
            str(doc["site_file"]),
            tuple(str(name) for name in doc["by_hand"]),
            {str(k): str(v) for k, v in doc["tags"].items()},
            files,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AgentError(f"{path}: manifest: {error}") from None
    if f"site/{found.site_file}" not in files:
        raise AgentError(f"{path}: the site file {found.site_file[:80]!r} is not in it")
    return found


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise AgentError(f"{name[:80]}: larger than {MAX_FILE >> 20} MB")
    return data


def unpack(backup: Backup, folder: Path, state: Path, epoch: str) -> list[Path]:
    """Papers for the new epoch, beside the site file: what commissioning proved, and the old acts to read.

    Args:
        backup: the archive.
        folder: where the site file is.
        state: the new state folder.
        epoch: of the new ledger; the papers name it, for they are to be signed for it.

    Returns:
        The protocols to be signed.
    """
    for name in STATE_FILES:
        if (data := backup.files.get(f"state/{name}")) is not None:
            (state / name).write_bytes(data)
    papers = folder / "restored"
    papers.mkdir(mode=0o700, exist_ok=True)
    protocols: list[Path] = []
    for name, data in backup.files.items():
        kind, _, file = name.partition("/")
        if kind == "acts":
            (papers / f"act-{file}").write_bytes(data)
        elif kind == "commissioning":
            path = papers / f"protocol-{file}"
            path.write_bytes(_json(json.loads(data) | {"epoch": epoch}))
            protocols.append(path)
    return protocols
