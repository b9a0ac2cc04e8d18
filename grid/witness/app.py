"""The witness's HTTP face: ``POST /add-checkpoint`` and ``GET /<sha256 of the origin>/checkpoint``."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse

from grid.witness.store import WitnessStore
from wire.checkpoints import Submission, cosign, parse_checkpoint
from wire.errors import BadNote, BadProof
from wire.keys import SigningKey
from wire.notes import COSIGNATURE, NoteKey, parse_note
from wire.registry import KeysDocument

log = structlog.get_logger(__name__)

MAX_BODY = 131_072
SIZE_TYPE = "text/x.tlog.size"


@dataclass(frozen=True, slots=True)
class Witness:
    """Key, store and register of one witness.

    ``register`` gives the register in force, ``None`` before there is one: then every log is unknown.
    """

    name: str
    key: SigningKey
    store: WitnessStore
    register: Callable[[], KeysDocument | None]
    now_ms: Callable[[], int]

    @property
    def public(self) -> NoteKey:
        """The key as policies name it."""
        return NoteKey(self.name, COSIGNATURE, self.key.public.raw)

    def add(self, body: bytes) -> tuple[int, str, str]:
        """Judge a request body: ``(status, content type, text)``."""
        try:
            submission = Submission.parse(body)
            note = parse_note(submission.note)
            origin = parse_checkpoint(note.text).origin
        except (BadNote, BadProof) as error:
            return 400, "text/plain", f"{error}\n"
        _, site, epoch = origin.split("/")
        register = self.register()
        keys = register.log_keys(site, epoch) if register else []
        now_ms = self.now_ms()
        verdict = self.store.decide(submission, origin, keys, now_ms)
        if verdict.misbehaviour:
            log.error("log_split", origin=origin, why=verdict.text)
        if verdict.error is None:
            return 200, "text/plain", cosign(note.text, self.name, self.key, now_ms // 1000).line()
        held = self.store.held(origin)
        log.warning("not_cosigned", origin=origin, error=verdict.error, text=verdict.text)
        if verdict.status == 409 and not verdict.misbehaviour:
            return 409, SIZE_TYPE, f"{held.size if held else 0}\n"
        return 422 if verdict.misbehaviour else verdict.status, "text/plain", f"{verdict.text}\n"


def make_app(witness: Witness) -> FastAPI:
    """The witness's application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/add-checkpoint")
    async def add_checkpoint(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return PlainTextResponse(f"at most {MAX_BODY} bytes\n", 413)
        try:
            status, kind, text = await run_in_threadpool(witness.add, body)
        except sqlite3.Error as error:
            log.error("not_kept", error=str(error))
            return PlainTextResponse("the witness cannot keep what it would sign; try again later\n", 503)
        return Response(text, status, media_type=kind)

    @app.get("/{origin_sha256}/checkpoint")
    async def checkpoint(origin_sha256: str) -> Response:
        origins = {hashlib.sha256(o.encode()).hexdigest(): o for o, *_ in witness.store.logs()}
        note = witness.store.note(origin_sha256, origins)
        return PlainTextResponse("no such log\n", 404) if note is None else Response(note, media_type="text/plain")

    @app.get("/status")
    async def status() -> Response:
        logs = [{"origin": o, "size": s, "at": at} for o, s, at in witness.store.logs()]
        splits = [{"origin": o, "why": why, "at": at} for o, why, at in witness.store.splits()]
        register = witness.register()
        version = register.version if register else None
        return JSONResponse({"key": witness.public.text, "register": version, "logs": logs, "splits": splits})

    return app
