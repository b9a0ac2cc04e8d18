"""The list of accredited pools, as a person keeps it (YAML or CSV), and the normalised file the agent keeps of it.

YAML::

    pools:
      - {name: "Pool KZ", hosts: [pool.kz, "*.pool.kz"], certificate: "17", valid_to: 2028-01-01}
    devfee:
      - {name: "firmware share", hosts: [fee.example.com]}
    proxies:
      - {name: "site proxy", hosts: [10.20.0.5]}
    calendar:
      off: [2026-12-17]
      working: [2026-12-19]

CSV: columns ``name``, ``hosts`` (separated by blanks), and if wanted ``kind`` (accredited, devfee, proxy),
``certificate``, ``valid_from``, ``valid_to``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

from agent.errors import AgentError
from agent.inventory.headers import header_key
from agent.inventory.pools import ListedPool, PoolList, Verdict, hosts_of, pool_host
from agent.inventory.register import read_bounded, write_atomically
from agent.inventory.tables import Row, rows_of
from config import yamlsource
from config.problems import ConfigError

FILE = "accredited_pools.json"
MAX_BYTES = 4 * 1024 * 1024
MAX_POOLS = 2_000
MAX_HOSTS = 200
_KINDS = {"pools": Verdict.ACCREDITED, "devfee": Verdict.FEE, "proxies": Verdict.PROXY}
_CSV_KINDS = {"": Verdict.ACCREDITED, "accredited": Verdict.ACCREDITED, "devfee": Verdict.FEE, "proxy": Verdict.PROXY}
_FIELDS = frozenset({"name", "hosts", "certificate", "valid_from", "valid_to"})


@dataclass(frozen=True, slots=True)
class Accredited:
    """The list, and the operator's own days off and working days."""

    pools: tuple[ListedPool, ...] = ()
    off: tuple[date, ...] = ()
    working: tuple[date, ...] = ()

    def pool_list(self) -> PoolList:
        """The list, ready to be asked."""
        return PoolList(self.pools)


def read(path: Path) -> Accredited:
    """Read a list.

    Raises:
        AgentError: it cannot be read, or something in it is wrong; the message names file, entry and field.
    """
    raw = read_bounded(path, MAX_BYTES)
    if raw is None:
        raise AgentError(f"{path}: there is no such file; expected the list of accredited pools (YAML or CSV)")
    if path.suffix.casefold() in {".csv", ".xlsx"}:
        return _checked(path.name, Accredited(tuple(_from_rows(path.name, rows_of(path, raw)))))
    try:
        data, _ = yamlsource.read(path)
    except ConfigError as error:
        raise AgentError(str(error)) from None
    return _checked(path.name, _from_yaml(path.name, data))


def store(state_dir: Path, accredited: Accredited) -> Path:
    """Keep it for the running agent.

    Raises:
        AgentError: it cannot be written.
    """
    return write_atomically(state_dir / FILE, msgspec.json.format(msgspec.json.encode(accredited), indent=1))


def load(state_dir: Path) -> Accredited | None:
    """The list that was stored, or ``None``.

    Raises:
        AgentError: the file cannot be read or is not what this program wrote.
    """
    raw = read_bounded(state_dir / FILE, MAX_BYTES * 2)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=Accredited)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise AgentError(f"{state_dir / FILE}: not a list of pools ({error}); import it again") from None


def _from_yaml(name: str, data: yamlsource.Data) -> Accredited:
    if not isinstance(data, dict):
        raise AgentError(f"{name}: expected a mapping with 'pools'")
    if unknown := sorted(set(data) - {*_KINDS, "calendar"}):
        raise AgentError(f"{name}: {', '.join(unknown)[:100]}: unknown; expected pools, devfee, proxies, calendar")
    pools = []
    for key, kind in _KINDS.items():
        listed = data.get(key) or []
        if not isinstance(listed, list):
            raise AgentError(f"{name}: {key}: expected a list")
        for at, item in enumerate(listed, start=1):
            if not isinstance(item, dict):
                raise AgentError(f"{name}: {key}, entry {at}: expected name and hosts")
            pools.append(_pool(f"{name}: {key}, entry {at}", item, kind))
    calendar = data.get("calendar") or {}
    if not isinstance(calendar, dict) or set(calendar) - {"off", "working"}:
        raise AgentError(f"{name}: calendar: expected lists 'off' and 'working' of days")
    return Accredited(tuple(pools), _days(name, calendar, "off"), _days(name, calendar, "working"))


def _from_rows(name: str, rows: Iterable[Row]) -> Iterable[ListedPool]:
    header: list[str] | None = None
    for row in rows:
        texts = [cell.text for cell in row.cells]
        if header is None:
            header = [header_key(text).replace(" ", "_") for text in texts]
            if not {"name", "hosts"} <= set(header):
                raise AgentError(f"{name}: row {row.number}: expected a header with name and hosts")
            continue
        given: dict[str, yamlsource.Data] = {}
        given.update({key: text for key, text in zip(header, texts, strict=False) if key in _FIELDS and text})
        given["hosts"] = [*str(given.get("hosts", "")).replace(",", " ").replace(";", " ").split()]
        kind = dict(zip(header, texts, strict=False)).get("kind", "").casefold()
        if kind not in _CSV_KINDS:
            raise AgentError(f"{name}: row {row.number}: kind {kind[:20]!r}: expected accredited, devfee or proxy")
        yield _pool(f"{name}: row {row.number}", given, _CSV_KINDS[kind])


def _pool(where: str, item: Mapping[str, yamlsource.Data], kind: Verdict) -> ListedPool:
    if unknown := sorted(set(item) - _FIELDS):
        raise AgentError(f"{where}: {', '.join(unknown)[:100]}: unknown; expected {', '.join(sorted(_FIELDS))}")
    pool_name, hosts = item.get("name"), item.get("hosts")
    if not isinstance(pool_name, str) or not pool_name.strip() or " + " in pool_name or len(pool_name) > 100:
        raise AgentError(f"{where}: name: expected a text of at most 100 characters without ' + '")
    if isinstance(hosts, str):
        hosts = [hosts]
    if not isinstance(hosts, list) or not 0 < len(hosts) <= MAX_HOSTS or not all(isinstance(h, str) for h in hosts):
        raise AgentError(f"{where}: hosts: expected 1 to {MAX_HOSTS} host names")
    try:
        found = tuple(hosts_of(str(host) for host in hosts))
    except ValueError as error:
        raise AgentError(f"{where}: {error}") from None
    certificate = item.get("certificate")
    return ListedPool(
        name=pool_name.strip(),
        hosts=found,
        kind=kind,
        valid_from=_day(where, "valid_from", item.get("valid_from")),
        valid_to=_day(where, "valid_to", item.get("valid_to")),
        certificate=None if certificate is None else str(certificate)[:100],
    )


def _days(name: str, calendar: Mapping[str, yamlsource.Data], key: str) -> tuple[date, ...]:
    listed = calendar.get(key) or []
    if not isinstance(listed, list):
        raise AgentError(f"{name}: calendar: {key}: expected a list of days")
    return tuple(day for item in listed if (day := _day(f"{name}: calendar", key, item)) is not None)


def _day(where: str, key: str, value: yamlsource.Data) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise AgentError(f"{where}: {key}: saw {str(value)[:20]!r}, expected a day such as 2026-03-31") from None


def _checked(name: str, found: Accredited) -> Accredited:
    if len(found.pools) > MAX_POOLS:
        raise AgentError(f"{name}: {len(found.pools)} pools; at most {MAX_POOLS} expected")
    first: dict[str, str] = {}
    names: set[str] = set()
    for pool in found.pools:
        if pool.name in names:
            raise AgentError(f"{name}: {pool.name!r} is there twice; give one entry all its hosts")
        names.add(pool.name)
        for host in pool.hosts:
            other = first.setdefault(host, pool.name)
            if other != pool.name:
                raise AgentError(f"{name}: host {host} belongs to {other!r} and to {pool.name!r}; expected one of them")
    listed = found.pool_list()
    for pool in found.pools:
        called = pool_host(pool.name)
        if called is not None and "." in called and listed.find(called) is not pool:
            raise AgentError(f"{name}: the name {pool.name!r} is a host that is none of its hosts; name it otherwise")
    return found
