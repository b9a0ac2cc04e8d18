"""Other witnesses of the sites' logs, and of central's own: it carries checkpoints to them and cosignatures back.

They are asked over HTTP, or over central's broker where they are clients of it. Central cannot make a cosignature up,
nor change one: agents check each line against the register's policy. What it can do is not carry; then checkpoints stay
without a quorum, and agents say so. What a witness answers is checked before it goes to a site.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import httpx
import structlog

from config.central import RemoteWitness
from wire.canonical import MAX_INT
from wire.checkpoints import Submission, cosigned_at, parse_checkpoint
from wire.errors import BadKey, BadNote
from wire.keys import unb64
from wire.messages import CheckpointMessage, Cosign, SizeProof
from wire.notes import Note, NoteKey, parse_note, parse_signature_lines
from wire.witness_link import Ask, Said, ask_topic, client_name, said_topic

log = structlog.get_logger(__name__)

TIMEOUT_S = 5.0
RETRY_S = 10.0
MAX_ANSWER = 16_384
ERRORS = {404: "unknown_log", 403: "bad_signature", 422: "bad_proof"}
Log = tuple[str, str]
"""(site, epoch); of a log of verdicts the epoch is ``vee``."""
Send = Callable[[str, bytes, int], bool]
"""``(topic, payload, expiry_s)``: hand a message to the broker; false where there is no connection."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a witness said to a checkpoint: its lines, which hold, or why there are none."""

    witness: NoteKey
    size: int
    """The largest size that it has cosigned."""
    lines: str | None = None
    error: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A checkpoint to be cosigned."""

    log: Log
    note: str
    proofs: tuple[SizeProof, ...]
    heard: Callable[[Heard], Awaitable[None]]
    """Takes the answer; called in the task of the witness."""


@dataclass(slots=True)
class _Remote:
    """One witness, and what waits for it: the newest checkpoint of each log."""

    url: str | None
    """``None``: over the broker."""
    key: NoteKey
    client: str
    """Its name at the broker; empty where it is asked over HTTP."""
    waiting: dict[Log, Offer] = field(default_factory=dict)
    sizes: dict[Log, int] = field(default_factory=dict)
    asked: dict[str, asyncio.Future[Said]] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


def broker_clients(settings: Sequence[RemoteWitness]) -> tuple[str, ...]:
    """Client names of the witnesses that connect to central's broker.

    Raises:
        BadNote: a key is none.
        BadKey: a key cannot be used.
    """
    return tuple(client_name(NoteKey.parse(w.key)) for w in settings if w.url is None)


class WitnessRelay:
    """One task per witness: a slow or dead one delays nobody else.

    Args:
        settings: the witnesses.
        publish: gives a message to topic ``cosign`` of its site.
        send: gives a message to the broker.

    Raises:
        BadNote: a key is none.
        BadKey: a key cannot be used.
    """

    def __init__(self, settings: Sequence[RemoteWitness], publish: Callable[[Cosign], None], send: Send) -> None:
        self._remotes = [_remote(w) for w in settings]
        self._by_topic = {said_topic(r.client): r for r in self._remotes if r.url is None}
        self._publish = publish
        self._send = send
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics on which witnesses answer."""
        return tuple(self._by_topic)

    def hears(self, topic: str) -> bool:
        """True for a topic on which a witness answers."""
        return topic in self._by_topic

    def start(self) -> None:
        """Begin to carry."""
        self._tasks = [asyncio.create_task(self._run(r), name=f"witness-{r.key.name}") for r in self._remotes]

    async def stop(self) -> None:
        """Stop; what waited comes again with the next checkpoint."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def keys(self) -> tuple[NoteKey, ...]:
        """Keys of the witnesses."""
        return tuple(remote.key for remote in self._remotes)

    def take(self, message: CheckpointMessage) -> None:
        """A site's checkpoint for all witnesses; what they say goes to the site."""

        async def publish(heard: Heard) -> None:
            self._publish(_cosign(message, heard))

        self.offer(Offer((message.site, message.epoch), message.note, message.proofs, publish))

    def offer(self, offer: Offer, only: NoteKey | None = None) -> None:
        """A checkpoint for all witnesses or one; it replaces an older one of the same log."""
        for remote in self._remotes:
            if only is None or remote.key == only:
                remote.waiting[offer.log] = offer
                remote.wake.set()

    def arrived(self, topic: str, payload: bytes) -> None:
        """A witness spoke over the broker. What nobody asked for, or not in this form, is passed over."""
        remote = self._by_topic.get(topic)
        if remote is None:
            return
        try:
            said = Said.parse(payload)
        except BadNote as error:
            log.warning("witness_not_understood", witness=remote.key.name, error=str(error))
            return
        waiting = remote.asked.get(said.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(said)

    async def _run(self, remote: _Remote) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
            while True:
                await remote.wake.wait()
                remote.wake.clear()
                for name in list(remote.waiting):
                    offer = remote.waiting.pop(name)
                    try:
                        heard = await self._ask(client, remote, offer)
                    except (httpx.HTTPError, TimeoutError, BadNote, BadKey, ValueError) as error:
                        why = str(error)[:200] or type(error).__name__
                        log.warning("witness_not_asked", witness=remote.key.name, error=why)
                        remote.waiting.setdefault(name, offer)
                        self._later(remote)
                        continue
                    remote.sizes[name] = heard.size
                    await offer.heard(heard)

    @staticmethod
    def _later(remote: _Remote) -> None:
        asyncio.get_running_loop().call_later(RETRY_S, remote.wake.set)

    async def _ask(self, client: httpx.AsyncClient, remote: _Remote, offer: Offer) -> Heard:
        note = parse_note(offer.note.encode())
        size = parse_checkpoint(note.text).size
        known = remote.sizes.get(offer.log, 0)
        path = next((p.path for p in offer.proofs if p.old == known), ())
        old = known if path or known == size else 0
        proof = tuple(unb64(step, max_bytes=64) for step in path)
        body = Submission(old, proof, offer.note.encode()).encode()
        if remote.url is None:
            status, text = await self._over_broker(remote, body)
        else:
            status, text = await _over_http(client, remote.url, body)
        if status == httpx.codes.OK:
            return Heard(remote.key, size, _own_lines(note, text, remote.key))
        if status == httpx.codes.CONFLICT and text.strip().isdecimal():
            return Heard(remote.key, _size(text), error="conflict")
        with contextlib.suppress(KeyError):
            return Heard(remote.key, known, error=ERRORS[status], text=text[:500])
        raise ValueError(f"status {status}")

    async def _over_broker(self, remote: _Remote, body: bytes) -> tuple[int, str]:
        ask = Ask(secrets.token_hex(16), body)
        answer: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        remote.asked[ask.id] = answer
        try:
            if not self._send(ask_topic(remote.client), ask.encode(), round(TIMEOUT_S)):
                raise ValueError("central is not connected to the broker")
            async with asyncio.timeout(TIMEOUT_S):
                said = await answer
        finally:
            del remote.asked[ask.id]
        return said.status, said.text


def _remote(settings: RemoteWitness) -> _Remote:
    key = NoteKey.parse(settings.key)
    if settings.url is not None:
        return _Remote(settings.url.rstrip("/"), key, "")
    return _Remote(None, key, client_name(key))


def _size(text: str) -> int:
    """The size that a witness names; anything that no log has is refused, as a message to a site refuses it."""
    size = int(text.strip()[:20])
    if size > MAX_INT:
        raise ValueError(f"size {size}")
    return size


def _cosign(message: CheckpointMessage, heard: Heard) -> Cosign:
    return Cosign(
        site=message.site,
        epoch=message.epoch,
        witness=heard.witness.name,
        size=heard.size,
        of_size=heard.size if heard.lines is not None else None,
        lines=heard.lines,
        error=heard.error,  # type: ignore[arg-type] # one of ERRORS, or conflict
        text=heard.text,
    )


def _own_lines(note: Note, text: str, key: NoteKey) -> str:
    """The witness's own lines of an answer, each over this very note; lines of other names are left out.

    Raises:
        BadNote: there is none, or one that does not hold.
    """
    lines = [line for line in parse_signature_lines(text) if line.is_of(key)]
    if not lines:
        raise BadNote(f"an answer without a line of {key.name}")
    for line in lines:
        cosigned_at(note.text, line, key)
    return "".join(line.line() for line in lines)


async def _over_http(client: httpx.AsyncClient, url: str, body: bytes) -> tuple[int, str]:
    answer = b""
    async with client.stream("POST", f"{url}/add-checkpoint", content=body) as response:
        async for chunk in response.aiter_bytes():
            answer += chunk
            if len(answer) > MAX_ANSWER:
                raise ValueError(f"an answer of more than {MAX_ANSWER} bytes")
    return response.status_code, answer.decode("utf-8", "replace")
