"""Pools against the accredited list, the list itself, and the two working days until notice is due."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import AgentError
from agent.inventory import accredited
from agent.inventory.pools import Verdict, hosts_of, mask, pool_host
from agent.inventory.workdays import WorkCalendar, kazakhstan, notice_due
from tests.unit.pool_kit import LIST, WALLET

DAY = date(2026, 11, 21)


# hosts and verdicts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("stratum+tcp://eu.pool.kz:3333", "eu.pool.kz"),
        ("stratum+ssl://EU.Pool.KZ:443/", "eu.pool.kz"),
        ("eu.pool.kz:3333", "eu.pool.kz"),
        ("eu.pool.kz", "eu.pool.kz"),
        ("eu.pool.kz.", "eu.pool.kz"),
        ("stratum2+tcp://pool.kz:3336/9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72", "pool.kz"),
        ("stratum+tcp://user:secret@pool.kz:1", "pool.kz"),
        ("10.20.0.5:3333", "10.20.0.5"),
        ("[2001:DB8::1]:3333", "2001:db8::1"),
        ("stratum+tcp://пул.қаз:3333", "xn--j1ael.xn--80ao5d"),
        ("", None),
        (None, None),
        ("http://", None),
        ("a b", None),
        ("x" * 5000, None),
        ("pool..kz", None),
    ],
)
def test_the_host_of_a_pool_address(url: str | None, host: str | None) -> None:
    found = pool_host(url)
    if host is not None and host.startswith("xn--"):
        assert found is not None
        assert re.fullmatch(r"xn--[a-z0-9-]+\.xn--[a-z0-9-]+", found)
    else:
        assert found == host


@given(st.text(max_size=300))
def test_any_text_gives_a_host_or_none(text: str) -> None:
    host = pool_host(text)
    assert host is None or (host.isascii() and len(host) <= 253 and " " not in host and host == host.lower())


@pytest.mark.parametrize(
    ("url", "key", "verdict"),
    [
        ("stratum+tcp://pool.kz:3333", "Pool KZ", Verdict.ACCREDITED),
        ("pool.kz:443", "Pool KZ", Verdict.ACCREDITED),
        ("a.eu.pool.kz:1", "Pool KZ", Verdict.ACCREDITED),
        ("b.a.eu.pool.kz:1", "Pool KZ", Verdict.ACCREDITED),
        ("eu.pool.kz:1", "eu.pool.kz", Verdict.UNLISTED),
        ("x.pool.kz:1", "x.pool.kz", Verdict.UNLISTED),
        ("evilpool.kz:1", "evilpool.kz", Verdict.UNLISTED),
        ("pool.kz.evil.com:1", "pool.kz.evil.com", Verdict.UNLISTED),
        ("pool.kz@evil.com:1", "evil.com", Verdict.UNLISTED),
        ("old.kz:1", "Old Pool", Verdict.LAPSED),
        ("fee.example.com:1", "Vendor share", Verdict.FEE),
        ("DevFee", "devfee", Verdict.FEE),
        ("10.20.0.5:3333", "Own proxy", Verdict.PROXY),
        ("", "unknown", Verdict.UNKNOWN),
        (None, "unknown", Verdict.UNKNOWN),
    ],
)
def test_what_the_list_says_of_an_address(url: str | None, key: str, verdict: Verdict) -> None:
    found = LIST.judge(url, DAY)
    assert (found.key, found.verdict) == (key, verdict)


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        (f"{WALLET}.rig-07", "….rig-07"),
        ("account.001", "….001"),
        ("", None),
        (None, None),
    ],
)
def test_a_worker_is_shown_and_its_account_never(user: str | None, shown: str | None) -> None:
    assert mask(user, b"k") == shown


@pytest.mark.parametrize("user", [WALLET, f"x.{WALLET}", "plain-account", ".rig", f"{WALLET}.a.b"])
def test_an_account_without_a_workers_name_is_a_keyed_digest(user: str) -> None:
    first, second = mask(user, b"k" * 32), mask(user, b"j" * 32)
    assert first is not None
    assert re.fullmatch(r"#[0-9a-f]{12}", first)
    assert first != second
    assert user not in first


# the list -----------------------------------------------------------------------------------------------------------

YAML = """
pools:
  - {name: "Pool KZ", hosts: [pool.kz, "*.pool.kz"], certificate: "17", valid_from: 2025-01-01, valid_to: 2028-01-01}
devfee:
  - {name: "Vendor share", hosts: [fee.example.com]}
proxies:
  - {name: "Own proxy", hosts: [10.20.0.5]}
calendar:
  off: [2026-12-17]
  working: [2026-12-19]
"""


def test_a_list_in_yaml_and_in_csv_says_the_same(tmp_path: Path) -> None:
    yaml, csv = tmp_path / "pools.yaml", tmp_path / "pools.csv"
    yaml.write_text(YAML)
    csv.write_text(
        "name,hosts,kind,certificate,valid_from,valid_to\n"
        "Pool KZ,pool.kz *.pool.kz,,17,2025-01-01,2028-01-01\n"
        "Vendor share,fee.example.com,devfee,,,\nOwn proxy,10.20.0.5,proxy,,,\n"
    )
    given_list = accredited.read(yaml)
    assert given_list.pools == accredited.read(csv).pools
    assert given_list.off == (date(2026, 12, 17),)
    assert accredited.load(tmp_path) is None
    accredited.store(tmp_path, given_list)
    assert accredited.load(tmp_path) == given_list


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pools: [{name: A, hosts: []}]", "pools, entry 1: hosts: expected 1 to"),
        ("pools: [{name: A, hosts: ['*.*.kz']}]", r"host '\*.\*.kz'"),
        ("pools: [{name: A, hosts: ['*.10.0.0.1']}]", "expected a host such as"),
        ("pools: [{hosts: [a.kz]}]", "name: expected a text"),
        ("pools: [{name: A, hosts: [a.kz], prot: 3}]", "prot: unknown; expected"),
        ("pools: [{name: A, hosts: [a.kz], valid_to: tomorrow}]", "valid_to: saw 'tomorrow'"),
        ("pools: [{name: A, hosts: [a.kz]}, {name: B, hosts: [a.kz]}]", "host a.kz belongs to 'A' and to 'B'"),
        ("pools: [{name: A, hosts: [a.kz]}, {name: A, hosts: [b.kz]}]", "'A' is there twice"),
        ("pools: [{name: b.kz, hosts: [a.kz]}]", "the name 'b.kz' is a host that is none of its hosts"),
        ("pool: []", "pool: unknown; expected pools, devfee"),
        ("calendar: {off: [x]}", "calendar: off: saw 'x'"),
        ("- a", "expected a mapping"),
        ("{", "pools.yaml"),
    ],
)
def test_a_mistake_in_the_list_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    path.write_text(text)
    with pytest.raises(AgentError, match=said):
        accredited.read(path)


def test_hosts_are_compared_as_they_are_read() -> None:
    assert list(hosts_of(["EU.Pool.KZ:3333", "*.Pool.kz"])) == ["eu.pool.kz", "*.pool.kz"]


def test_the_entry_of_a_listed_pool_can_lapse() -> None:
    pool = replace(LIST.pools[0], valid_from=date(2026, 1, 1))
    assert [pool.on(day) for day in (date(2025, 12, 31), date(2026, 1, 1), date(2027, 1, 1), date(2027, 1, 2))] == [
        Verdict.LAPSED,
        Verdict.ACCREDITED,
        Verdict.ACCREDITED,
        Verdict.LAPSED,
    ]


# working days -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calendar() -> WorkCalendar:
    return kazakhstan(range(2025, 2029))


def almaty_ms(text: str) -> int:
    return round(datetime.fromisoformat(text + "+05:00").timestamp() * 1000)


@pytest.mark.parametrize(
    ("switched", "due"),
    [
        ("2026-11-23T10:00", "2026-11-25"),  # Monday
        ("2026-11-19T10:00", "2026-11-23"),  # Thursday: Friday, Monday
        ("2026-11-20T10:00", "2026-11-24"),  # Friday
        ("2026-11-21T10:00", "2026-11-24"),  # Saturday
        ("2026-12-14T10:00", "2026-12-17"),  # Independence Day on Wednesday
        ("2026-03-19T10:00", "2026-03-26"),  # Nowruz, its days moved from the weekend
        ("2026-12-31T10:00", "2027-01-06"),  # New Year, moved, before Christmas
        ("2026-11-22T23:59", "2026-11-24"),  # Sunday's last minute in Kazakhstan
        ("2026-11-23T00:01", "2026-11-25"),  # Monday's first, Sunday still in UTC
    ],
)
def test_notice_is_due_by_the_end_of_the_second_working_day(switched: str, due: str, calendar: WorkCalendar) -> None:
    assert notice_due(almaty_ms(switched), calendar).isoformat() == due


def test_days_moved_by_decree_come_from_the_operators_list() -> None:
    moved = kazakhstan([2026], off=[date(2026, 12, 17)], working=[date(2026, 12, 19)])
    assert notice_due(almaty_ms("2026-12-15T10:00"), moved).isoformat() == "2026-12-19"
    assert not moved.covers(date(2027, 1, 1))


def test_a_calendar_without_working_days_is_an_error_and_no_endless_search(calendar: WorkCalendar) -> None:
    never = WorkCalendar(
        frozenset(date.fromordinal(d) for d in range(DAY.toordinal(), DAY.toordinal() + 400)), frozenset(), DAY, DAY
    )
    with pytest.raises(ValueError, match="correct the list"):
        never.after(DAY, 2)
    with pytest.raises(ValueError, match="at least 1"):
        calendar.after(DAY, 0)
