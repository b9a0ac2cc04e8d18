"""The collector's signed list of the bundle's files."""

from __future__ import annotations

from pathlib import Path

from verifier.archive import Bundle
from verifier.canonical import Object, read_canonical
from verifier.errors import CannotVerify, ManifestError, UnknownSigner
from verifier.keys import read_envelope
from verifier.register import Trust

MANIFEST_TYPE = "application/vnd.tizgin.manifest.v1+json"
MAX_MANIFEST = 4_194_304


def open_bundle(path: Path) -> Bundle:
    """The bundle, its frame checked.

    Raises:
        CannotVerify: it cannot be read.
        ArchiveError, ArchiveLimit: the frame is not the canonical one.
    """
    try:
        return Bundle(path)
    except OSError as error:
        raise CannotVerify(f"{path}: cannot be read: {error.strerror or error}") from None


def read_manifest(bundle: Bundle, trust: Trust) -> Object:
    """The manifest that a collector of the trust file signed.

    Raises:
        UnknownSigner: nobody whom the trust file names signed it.
        ManifestError: a wrong signature, or fields that cannot be.
    """
    try:
        envelope = read_envelope(
            bundle.read(bundle.entries["manifest.json"], MAX_MANIFEST), MANIFEST_TYPE, max_bytes=MAX_MANIFEST
        )
        if not envelope.good_signers(trust.collector):
            seen = ", ".join(kid for kid, _ in envelope.signatures)
            raise UnknownSigner(f"the manifest is signed by {seen}, the trust file names {', '.join(trust.collector)}")
        doc = read_canonical(envelope.payload, max_bytes=MAX_MANIFEST)
        fields = {"v", "site", "period", "made_at", "tool", "files"}
        if set(doc) != fields or doc["v"] != 1 or not isinstance(doc["site"], str):
            raise ValueError(f"expected exactly {', '.join(sorted(fields))}")
        span = doc["period"]
        if set(span) != {"from", "to"} or not all(type(n) is int for n in span.values()) or span["from"] >= span["to"]:
            raise ValueError(f"period {span!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"manifest: {error}") from None
    return doc


def check_files(bundle: Bundle, manifest: Object) -> None:
    """Every file of the archive is the one that the manifest lists in its place.

    Raises:
        ManifestError, ArchiveError: one is not.
    """
    files = manifest["files"]
    entries = [entry for name, entry in bundle.entries.items() if name != "manifest.json"]
    if not isinstance(files, dict) or list(files) != [f"f{i:04d}" for i in range(len(entries))]:
        raise ManifestError(f"the manifest lists {len(files)} files, the archive has {len(entries)}")
    for entry, said in zip(entries, files.values(), strict=True):
        seen = {"name": entry.name, "sha256": bundle.digest(entry), "bytes": entry.size}
        if said != seen:
            raise ManifestError(f"{entry.name}: not the file that the manifest lists in this place")
    # The manifest cannot hold its own hash; its check sum is checked here like the others'.
    bundle.digest(bundle.entries["manifest.json"])
