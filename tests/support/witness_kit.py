"""A witness of its own that answers over HTTP in this process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from ports import free_ports

from config.central import RemoteWitness
from grid.witness.app import Witness, make_app
from grid.witness.store import WitnessStore
from wire.keys import SigningKey
from wire.notes import COSIGNATURE, NoteKey
from wire.registry import KeysDocument

NAME = "so.example"


@dataclass
class OwnWitness:
    """Key, store and address; ``document`` is the register it goes by."""

    store: WitnessStore
    key: SigningKey
    port: int
    document: KeysDocument | None = None

    @property
    def note_key(self) -> NoteKey:
        return NoteKey(NAME, COSIGNATURE, self.key.public.raw)

    @property
    def settings(self) -> RemoteWitness:
        return RemoteWitness(url=f"http://127.0.0.1:{self.port}", key=self.note_key.text)


@contextlib.asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[OwnWitness]:
    """The witness, which begins to listen in a moment and does until the end of the block."""
    made = OwnWitness(WitnessStore(folder / "witness.db"), SigningKey.generate(), free_ports(1)[0])
    witness = Witness(NAME, made.key, made.store, lambda: made.document, lambda: time.time_ns() // 1_000_000)
    config = uvicorn.Config(make_app(witness), port=made.port, log_level="warning", lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # older uvicorn has it
    running = asyncio.create_task(server.serve())
    try:
        yield made
    finally:
        server.should_exit = True
        await running
        made.store.close()
