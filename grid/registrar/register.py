"""A person's YAML → the register (:class:`wire.registry.KeysDocument`) → its signed envelope.

The YAML has the fields of the register with three eases: times may be ISO dates, power may be given in kW
(``contracted_kw`` instead of ``contracted_w``, ``max_ramp_kw_per_min`` likewise), and an issuer's ``kid`` may be left
out (it follows from ``key``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from grid.errors import RegisterError
from grid.files import read_bounded, replace_file
from wire import canonical
from wire.errors import BadKey, NotCanonical, WireError
from wire.keys import SigningKey, VerifyKey, kid_of, unb64
from wire.logkeys import read_log_key
from wire.registry import MAX_KEYS_BYTES, KeysDocument, open_keys, sign_keys

KILOWATTS = re.compile(r"_kw(_per_min)?$")
TIMES = frozenset({"valid_from", "valid_to", "issued_at", "at", "until"})


class _NoAlias(yaml.SafeLoader):
    """Safe YAML without aliases (a few lines of them can unfold into gigabytes) and without repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.get_mark().line + 1
            raise yaml.YAMLError(f"near line {line}: aliases are not allowed in a register")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: {key_node.value!r} is given twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML (or JSON) mapping from a file of at most 4 MB.

    Raises:
        RegisterError: not such a file; the message has the line.
    """
    data = read_bounded(path, MAX_KEYS_BYTES)
    try:
        # The loader is a subclass of SafeLoader: it builds plain data only.
        doc = yaml.load(data.decode("utf-8"), Loader=_NoAlias)  # noqa: S506 - see the line above
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise RegisterError(f"{path}: not YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(doc, dict):
        raise RegisterError(f"{path}: expected a mapping at the top, found {type(doc).__name__}")
    return doc


def to_ms(value: object, where: str) -> int:
    """An ISO date or time (UTC if it has no offset), or ms since the epoch → ms.

    Raises:
        RegisterError: neither.
    """
    if isinstance(value, bool):
        raise RegisterError(f"{where}: {value!r} is no time")
    if isinstance(value, int):
        return value
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, datetime):
            moment = value if value.tzinfo else value.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000)
    except ValueError:
        pass
    raise RegisterError(f"{where}: {value!r} is no time; expected e.g. 2026-11-21T00:00:00+05:00")


def to_watt(value: object, where: str) -> int:
    """kW as a number or text → whole W.

    Raises:
        RegisterError: not a number, negative, or finer than 1 W.
    """
    try:
        watt = Decimal(str(value)) * 1000
    except InvalidOperation:
        raise RegisterError(f"{where}: {value!r} is no number of kW") from None
    if isinstance(value, bool) or not watt.is_finite() or watt < 0 or watt != math.floor(watt):
        raise RegisterError(f"{where}: {value!r} kW, expected a number from 0 in whole watts")
    return int(watt)


def ease(value: Any, where: str) -> Any:
    """Plain YAML data with kW and dates → the same with W and ms, at any depth.

    Raises:
        RegisterError: a number or a time that is none.
    """
    if isinstance(value, list):
        return [ease(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for name, item in value.items():
        here = f"{where}.{name}" if where else str(name)
        plain = KILOWATTS.sub(r"_w\1", name) if isinstance(name, str) else name
        if isinstance(plain, str) and plain != name:
            out[plain] = to_watt(item, here)
        elif name in TIMES:
            out[name] = to_ms(item, here)
        else:
            out[str(name)] = ease(item, here)
    return out


def build(doc: dict[str, Any], *, now_ms: int, source: str) -> KeysDocument:
    """The register that a YAML describes.

    Raises:
        RegisterError: field, what was seen, what is wrong.
    """
    body = ease(doc, "")
    body.setdefault("v", 1)
    body.setdefault("issued_at", now_ms)
    for index, issuer in enumerate(body.get("issuers") or ()):
        if isinstance(issuer, dict) and "kid" not in issuer:
            try:
                issuer["kid"] = kid_of(unb64(str(issuer.get("key", "")), max_bytes=64))
            except BadKey as error:
                raise RegisterError(f"{source}: issuers[{index}].key: {error}") from None
    try:
        document = KeysDocument.model_validate_json(canonical.encode(body))
        _check_record_keys(document)
    except ValidationError as error:
        lines = [f"{'.'.join(str(p) for p in e['loc']) or 'register'}: {e['msg']}" for e in error.errors()[:10]]
        raise RegisterError(f"{source}: " + "; ".join(lines)) from None
    except (NotCanonical, BadKey) as error:
        raise RegisterError(f"{source}: {error}") from None
    return document


def _check_record_keys(document: KeysDocument) -> None:
    """The keys of sites get the same strict test as those of persons, and no key serves two purposes."""
    owners: dict[str, str] = {issuer.kid: f"issuer {issuer.person}" for issuer in document.issuers}
    owners |= {VerifyKey.from_text(c.key).kid: f"collector {c.name}" for c in document.collectors}
    for site in document.sites:
        for epoch in site.epochs:
            for name, text in (("k_rec", epoch.k_rec), ("k_log", epoch.k_log)):
                try:
                    kid = (VerifyKey.from_text if name == "k_rec" else read_log_key)(text).kid
                except BadKey as error:
                    raise BadKey(f"site {site.id} epoch {epoch.epoch} {name}: {error}") from None
                # A site may carry its own keys from one epoch into the next; anybody else's is a mistake.
                owner = f"site {site.id} {name}"
                if owners.setdefault(kid, owner) != owner:
                    raise BadKey(f"key {kid} is both {owners[kid]} and {owner}; every purpose needs its own key")


def sign_to_file(document: KeysDocument, key: SigningKey, out: Path) -> int | None:
    """Sign a register into a file; the version must rise against the file that is there.

    Returns the version that was replaced, ``None`` if there was none.

    Raises:
        RegisterError: the version does not rise, or the old file is not of this registrar.
    """
    before: int | None = None
    if out.exists():
        try:
            before = open_keys(read_bounded(out, MAX_KEYS_BYTES * 2), [key.public])[0].version
        except WireError as error:
            raise RegisterError(f"{out}: {error}; it is not overwritten: move it away or give another --out") from None
        if document.version <= before:
            raise RegisterError(
                f"version {document.version} does not rise: {out} has version {before}; "
                f"set 'version: {before + 1}' in the YAML"
            )
    raw = sign_keys(document, key)
    if len(raw) > MAX_KEYS_BYTES:
        raise RegisterError(f"the register has {len(raw)} bytes, sides take at most {MAX_KEYS_BYTES}")
    replace_file(out, raw)
    return before


def load_register(path: Path, registrar: Sequence[VerifyKey]) -> KeysDocument:
    """A signed register from a file, verified.

    Raises:
        RegisterError: not signed by this registrar, or damaged.
    """
    try:
        return open_keys(read_bounded(path, MAX_KEYS_BYTES), registrar)[0]
    except WireError as error:
        raise RegisterError(f"{path}: {error}") from None
