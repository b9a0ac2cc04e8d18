"""C2SP signed notes: text, an empty line, signature lines.

A line is ``— <key name> <base64(4-byte key id ‖ signature)>``; the key id is the head of SHA-256(name ‖ LF ‖ type ‖
public key), for 0x02 that of SHA-256(public key). Types used here: 0x01 Ed25519 (log), 0x02 ECDSA P-256 (log whose key
lives in a token), 0x04 Ed25519 cosignature (witness), whose signature is preceded by an 8-byte time and covers a text
of its own. Signatures of unknown keys are ignored, a bad signature of a known key refuses the note. Source:
github.com/C2SP/C2SP signed-note, tlog-checkpoint, tlog-cosignature.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from wire.errors import BadKey, BadNote
from wire.keys import SigningKey, VerifyKey, b64, unb64
from wire.logkeys import LogKey, P256Key

ED25519, ECDSA_P256, COSIGNATURE = 0x01, 0x02, 0x04
MAX_NOTE = 65_536
MAX_SIGNATURES = 64
DASH = "— "
_NAME = re.compile(r"[^\s+]{1,128}")


@dataclass(frozen=True, slots=True)
class NoteKey:
    """Public key of a note signer: ``name+<8 hex>+<base64(type ‖ key)>`` as text."""

    name: str
    kind: int
    public: bytes
    """Raw Ed25519 key, or SubjectPublicKeyInfo DER of a P-256 key."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadNote(f"key name {self.name[:60]!r}: expected 1-128 characters without space and plus")
        if self.kind in (ED25519, COSIGNATURE):
            VerifyKey(self.public)
        elif self.kind == ECDSA_P256:
            try:
                P256Key(self.public)
            except BadKey as error:
                raise BadNote(f"note key {self.name}: {error}") from None
        else:
            raise BadNote(f"note key {self.name}: type 0x{self.kind:02x}, expected 0x01, 0x02 or 0x04")

    @classmethod
    def parse(cls, text: str) -> NoteKey:
        """From its text.

        Raises:
            BadNote: it is no such key.
        """
        name, plus, rest = text.partition("+")
        key_id, plus2, body = rest.partition("+")
        try:
            data = unb64(body, max_bytes=256) if plus and plus2 else b""
            if len(data) < 2:
                raise BadNote(f"note key {text[:80]!r}: expected name+<8 hex>+<base64>")
            key = cls(name, data[0], data[1:])
        except BadKey as error:
            raise BadNote(f"note key {text[:80]!r}: {error}") from None
        if key.key_id.hex() != key_id:
            raise BadNote(f"note key {name}: its identifier is {key.key_id.hex()}, not {key_id[:16]!r}")
        return key

    @property
    def key_id(self) -> bytes:
        """Four bytes that name the key in signature lines."""
        if self.kind == ECDSA_P256:
            return hashlib.sha256(self.public).digest()[:4]
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([self.kind]) + self.public).digest()[:4]

    @property
    def text(self) -> str:
        """The key as written in policies."""
        return f"{self.name}+{self.key_id.hex()}+{b64(bytes([self.kind]) + self.public)}"

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """True if the signature is this key's over the message."""
        key: LogKey = P256Key(self.public) if self.kind == ECDSA_P256 else VerifyKey(self.public)
        return key.verifies(message, signature)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """The line with its line end."""
        return f"{DASH}{self.name} {b64(self.key_id + self.signature)}\n"

    def is_of(self, key: NoteKey) -> bool:
        """True where the line names this key; says nothing about the signature."""
        return self.name == key.name and self.key_id == key.key_id


@dataclass(frozen=True, slots=True)
class Note:
    """A note exactly as signed. ``text`` ends with a line end."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """The bytes of the note."""
        return (self.text + "\n" + "".join(s.line() for s in self.signatures)).encode()

    def of(self, key: NoteKey) -> list[NoteSignature]:
        """Signature lines that name this key."""
        return [s for s in self.signatures if s.is_of(key)]

    def signed_by(self, key: NoteKey) -> bool:
        """True if a log key (0x01, 0x02) signed the text.

        Raises:
            BadNote: a line names the key and is not its signature, or the key is a cosigner's.
        """
        if key.kind == COSIGNATURE:
            raise BadNote(f"note key {key.name} is a cosigner's, expected a log's")
        lines = self.of(key)
        if any(not key.verifies(self.text.encode(), line.signature) for line in lines):
            raise BadNote(f"the signature of {key.name} is not over this text")
        return bool(lines)


def parse_note(raw: bytes) -> Note:
    """Split a note; no signature is checked here.

    Raises:
        BadNote: it is none.
    """
    if len(raw) > MAX_NOTE:
        raise BadNote(f"note of {len(raw)} bytes, at most {MAX_NOTE}")
    try:
        whole = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadNote("note is not UTF-8") from None
    if any(ord(c) < 0x20 and c != "\n" for c in whole):
        raise BadNote("note has control characters")
    head, gap, tail = whole.rpartition("\n\n")
    if not gap or not head or not tail.endswith("\n"):
        raise BadNote("note has no text, or no empty line before its signatures, or no line end")
    lines = tail.split("\n")[:-1]
    if not 0 < len(lines) <= MAX_SIGNATURES:
        raise BadNote(f"note has {len(lines)} signatures, expected 1 to {MAX_SIGNATURES}")
    return Note(head + "\n", tuple(_signature(line) for line in lines))


def parse_signature_lines(text: str) -> tuple[NoteSignature, ...]:
    """Signature lines as a witness answers them.

    Raises:
        BadNote: a line is none.
    """
    lines = text.split("\n")
    if lines[-1] or not 0 < len(lines) - 1 <= MAX_SIGNATURES:
        raise BadNote("expected 1 to 64 signature lines, each with a line end")
    return tuple(_signature(line) for line in lines[:-1])


def sign_note(text: str, name: str, key: SigningKey) -> Note:
    """A note with one Ed25519 signature (0x01).

    Raises:
        BadNote: the text has no line end.
    """
    if not text.endswith("\n") or len(text) < 2:
        raise BadNote("the text of a note ends with a line end")
    public = NoteKey(name, ED25519, key.public.raw)
    return Note(text, (NoteSignature(name, public.key_id, key.sign(text.encode())),))


def _signature(line: str) -> NoteSignature:
    name, space, body = line.removeprefix(DASH).partition(" ")
    if not line.startswith(DASH) or not space or not _NAME.fullmatch(name):
        raise BadNote(f"signature line {line[:60]!r}: expected '{DASH}<name> <base64>'")
    try:
        data = unb64(body, max_bytes=8192)
    except BadKey as error:
        raise BadNote(f"signature of {name}: {error}") from None
    if len(data) < 5:
        raise BadNote(f"signature of {name} is too short")
    return NoteSignature(name, data[:4], data[4:])
