"""Other witnesses of the sites' logs: central carries checkpoints to them and their cosignatures back.

It cannot make a cosignature up, nor change one: agents check each line against the register's policy. What it can do is
not carry; then checkpoints stay without a quorum, and agents say so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
import structlog

from config.central import RemoteWitness
from wire.checkpoints import Submission, parse_checkpoint
from wire.errors import BadKey, BadNote
from wire.keys import unb64
from wire.messages import CheckpointMessage, Cosign
from wire.notes import NoteKey, parse_note

log = structlog.get_logger(__name__)

TIMEOUT_S = 5.0
RETRY_S = 10.0
MAX_ANSWER = 16_384
Log = tuple[str, str]
"""(site, epoch)."""


@dataclass(slots=True)
class _Remote:
    """One witness, and what waits for it: the newest checkpoint of each log."""

    url: str
    key: NoteKey
    waiting: dict[Log, CheckpointMessage] = field(default_factory=dict)
    sizes: dict[Log, int] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class WitnessRelay:
    """One task per witness: a slow or dead one delays nobody else.

    Args:
        settings: the witnesses.
        publish: gives a message to topic ``cosign`` of its site.
    """

    def __init__(self, settings: Sequence[RemoteWitness], publish: Callable[[Cosign], None]) -> None:
        self._remotes = [_Remote(w.url.rstrip("/"), NoteKey.parse(w.key)) for w in settings]
        self._publish = publish
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to carry."""
        self._tasks = [asyncio.create_task(self._run(r), name=f"witness-{r.key.name}") for r in self._remotes]

    async def stop(self) -> None:
        """Stop; what waited comes again with the next checkpoint."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def take(self, message: CheckpointMessage) -> None:
        """A checkpoint for all witnesses; it replaces an older one of the same log."""
        for remote in self._remotes:
            remote.waiting[message.site, message.epoch] = message
            remote.wake.set()

    async def _run(self, remote: _Remote) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
            while True:
                await remote.wake.wait()
                remote.wake.clear()
                for name in list(remote.waiting):
                    message = remote.waiting.pop(name)
                    try:
                        said = await self._ask(client, remote, message)
                    except (httpx.HTTPError, BadNote, BadKey, ValueError) as error:
                        log.warning("witness_not_asked", witness=remote.key.name, error=str(error)[:200])
                        remote.waiting.setdefault(name, message)
                        self._later(remote)
                        continue
                    remote.sizes[name] = said.size
                    self._publish(said)

    @staticmethod
    def _later(remote: _Remote) -> None:
        asyncio.get_running_loop().call_later(RETRY_S, remote.wake.set)

    async def _ask(self, client: httpx.AsyncClient, remote: _Remote, message: CheckpointMessage) -> Cosign:
        raw = message.note.encode()
        size = parse_checkpoint(parse_note(raw).text).size
        known = remote.sizes.get((message.site, message.epoch), 0)
        path = next((p.path for p in message.proofs if p.old == known), ())
        old = known if path or known == size else 0
        proof = tuple(unb64(step, max_bytes=64) for step in path)
        body = Submission(old, proof, raw).encode()
        answer = b""
        async with client.stream("POST", f"{remote.url}/add-checkpoint", content=body) as response:
            async for chunk in response.aiter_bytes():
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise ValueError(f"an answer of more than {MAX_ANSWER} bytes")
        text = answer.decode("utf-8", "replace")
        said = {"site": message.site, "epoch": message.epoch, "witness": remote.key.name}
        if response.status_code == httpx.codes.OK:
            return Cosign.model_validate(said | {"size": size, "of_size": size, "lines": text})
        if response.status_code == httpx.codes.CONFLICT and text.strip().isdecimal():
            return Cosign.model_validate(said | {"size": int(text), "error": "conflict"})
        errors = {404: "unknown_log", 403: "bad_signature", 422: "bad_proof"}
        with contextlib.suppress(KeyError):
            error = errors[response.status_code]
            return Cosign.model_validate(said | {"size": known, "error": error, "text": text[:500]})
        raise ValueError(f"HTTP {response.status_code}")
