"""Bodies of ``tizgin central enroll`` and ``tizgin central enroll-witness``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer

from central import pki
from central.errors import CentralError
from central.paths import Paths, write_public
from config.central import Central
from tizgin.errors import UserError
from wire.enrolment import MAX_BYTES, is_enrolment, read_enrolment
from wire.errors import BadKey, BadNote, WireError
from wire.notes import NoteKey
from wire.witness_link import client_name


def sign_site(settings: Central, config: Path, csr: Path, site: str, out: Path) -> None:
    """Sign a site's certificate, after the proofs of its enrolment.

    Raises:
        UserError: the site is not registered, or its request is refused.
    """
    if site not in {s.id for s in settings.sites}:
        raise UserError(f"site {site!r} is not registered in {config}: add it to 'sites' first")
    try:
        with csr.open("rb") as file:
            request = file.read(MAX_BYTES + 1)
        if is_enrolment(request):
            enrolment = read_enrolment(request, site)
            request = enrolment.csr
            typer.echo(f"all three proofs hold; epoch {enrolment.epoch}; K_rec {enrolment.fingerprint}", err=True)
        authority = pki.Authority.load(Paths.of(settings, config.resolve().parent))
        cert = pki.sign_csr(authority, request, site, datetime.now(UTC), days=settings.site_certificate_days)
        write_public(out, cert)
    except (CentralError, WireError, OSError) as error:
        raise UserError(str(error)) from None
    typer.echo(str(out))


def sign_witness(settings: Central, config: Path, csr: Path, key: str, out: Path) -> None:
    """Sign a witness's certificate for central's broker, and say where its rights are still lacking.

    Raises:
        UserError: the key or the request is refused.
    """
    try:
        client = client_name(NoteKey.parse(key))
        with csr.open("rb") as file:
            request = file.read(pki.MAX_CSR_BYTES + 1)
        authority = pki.Authority.load(Paths.of(settings, config.resolve().parent))
        write_public(out, pki.sign_csr(authority, request, client, datetime.now(UTC)))
    except (CentralError, BadKey, BadNote, OSError) as error:
        raise UserError(str(error)) from None
    if not any(w.key == key and w.url is None for w in settings.witnesses):
        typer.echo(
            f"{client} has no rights at the broker yet: add {{key: {key!r}}} to 'witnesses' in {config}", err=True
        )
    typer.echo(str(out))
