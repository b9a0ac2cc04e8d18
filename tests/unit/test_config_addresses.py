"""Address ranges of miner groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.addresses import AddressError, MachineAddress, expand, machines, parse
from config.devices import MinerGroup


def group(rpc: str, http: str | None = None) -> MinerGroup:
    return MinerGroup(
        id="g1", load="L", family="luxos", model="S19", rpc=rpc, http=http, nameplate_w=3250, nominal_ths=110
    )


def test_hosts_are_counted_across_octets() -> None:
    found = expand("10.20.1.254-10.20.2.1:4028")
    assert found == (("10.20.1.254", 4028), ("10.20.1.255", 4028), ("10.20.2.0", 4028), ("10.20.2.1", 4028))


def test_ports_are_counted_on_one_host() -> None:
    assert expand("127.0.0.1:24000-24002") == (("127.0.0.1", 24000), ("127.0.0.1", 24001), ("127.0.0.1", 24002))


def test_machines_are_numbered_from_one_and_paired_with_their_web_address() -> None:
    assert machines(group("10.0.0.1-10.0.0.2:4028", "127.0.0.1:81-82")) == (
        MachineAddress("g1/1", "10.0.0.1", 4028, "127.0.0.1", 81),
        MachineAddress("g1/2", "10.0.0.2", 4028, "127.0.0.1", 82),
    )
    assert machines(group("10.0.0.9:4028")) == (MachineAddress("g1/1", "10.0.0.9", 4028),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.1", "expected an IPv4 range"),
        ("miner1:4028", "expected an IPv4 range"),
        ("10.0.0.1-10.0.0.5:1-5", "not both"),
        ("10.0.0.5-10.0.0.1:4028", "first address before the last"),
        ("10.0.0.1:5-4", "first address before the last"),
        ("10.0.0.1:0", "ports from 1 to 65535"),
        ("10.0.0.1:70000", "ports from 1 to 65535"),
        ("10.0.0.256:4028", "expected IPv4 addresses"),
        ("10.0.0.01:4028", "expected IPv4 addresses"),
        ("1.0.0.1-9.0.0.1:4028", "expected at most 65536"),
    ],
)
def test_what_is_no_range_is_refused(text: str, words: str) -> None:
    with pytest.raises(AddressError, match=words):
        expand(text)


def test_ranges_of_two_sizes_are_refused() -> None:
    with pytest.raises(AddressError, match="saw 2 addresses in rpc and 3 in http"):
        machines(group("10.0.0.1-10.0.0.2:4028", "10.0.0.1-10.0.0.3:80"))


@given(st.integers(0, 2**32 - 300), st.integers(0, 200), st.integers(0, 2**32 - 300), st.integers(0, 200))
def test_ranges_overlap_exactly_when_they_share_an_address(a: int, n: int, b: int, m: int) -> None:
    from ipaddress import IPv4Address as Ip

    near = a + b % 300 if a + b % 300 + m < 2**32 else b
    one = parse(f"{Ip(a)}-{Ip(a + n)}:4028")
    two = parse(f"{Ip(near)}-{Ip(near + m)}:4028")
    assert one.overlaps(two) == bool(set(one.expand()) & set(two.expand()))
    assert one.size == len(one.expand())
