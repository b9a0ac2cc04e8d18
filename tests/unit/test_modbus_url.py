"""Addresses of links: what is understood, and what is refused with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.url import LinkUrl, parse_url


@pytest.mark.parametrize(
    ("url", "link", "unit"),
    [
        ("modbus://10.0.0.7:1502/3", LinkUrl("modbus", host="10.0.0.7", port=1502), 3),
        ("modbus://meter-7.site", LinkUrl("modbus", host="meter-7.site"), None),
        ("modbus://[::1]:502/255", LinkUrl("modbus", host="::1"), 255),
        ("rtutcp://gw:4001/1", LinkUrl("rtutcp", host="gw", port=4001), 1),
        ("rtu:///dev/ttyUSB0?baud=19200&parity=E/17", LinkUrl("rtu", path="/dev/ttyUSB0", baud=19200, parity="E"), 17),
        ("rtu:///dev/ttyS1?baud=9600&stop=2", LinkUrl("rtu", path="/dev/ttyS1", stop_bits=2), None),
        ("rtu:///dev/serial/by-id/usb-1/4", LinkUrl("rtu", path="/dev/serial/by-id/usb-1"), 4),
    ],
)
def test_understood(url: str, link: LinkUrl, unit: int | None) -> None:
    assert parse_url(url) == (link, unit)
    assert parse_url(str(link)) == (link, None)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://x", "expected modbus"),
        ("10.0.0.7:502", "expected modbus"),
        ("modbus://", "no host"),
        ("modbus://:502", "no host"),
        ("modbus://x:0/1", "port 0"),
        ("modbus://x:99999", "expected 1 to 65535"),
        ("modbus://x:502/256", "unit"),
        ("modbus://x:502/one", "unit"),
        ("modbus://x:502/-1", "unit"),
        ("modbus://x:502/1/2", "unit"),
        ("modbus://x?baud=9600", "settings"),
        ("rtu://ttyUSB0", "absolute path"),
        ("rtu:///dev/ttyUSB0?baud=fast", "baud"),
        ("rtu:///dev/ttyUSB0?parity=X", "parity"),
        ("rtu:///dev/ttyUSB0?speed=1", "unknown setting"),
    ],
)
def test_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_url(url)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="never stands in an address") as caught:
        parse_url("modbus://user:hunter2@10.0.0.7")
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=60))
def test_nothing_but_value_error_comes_out_of_junk(text: str) -> None:
    for prefix in ("modbus://", "rtu:///", "rtutcp://", ""):
        try:
            parse_url(prefix + text)
        except ValueError:
            continue
