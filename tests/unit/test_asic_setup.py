"""Addresses, log-ins and drivers by name: what a person writes, checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from config.devices import Credentials as Source
from drivers.asic.credentials import CredentialError, Credentials, credentials_from_environment, load_credentials
from drivers.asic.family import Address
from drivers.asic.identify import UNREACHABLE, address_for, driver_for, families
from drivers.asic.probe import AsicUrl, parse_url, probe


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("asic://10.20.1.7", AsicUrl("10.20.1.7")),
        ("asic://10.20.1.7:4029", AsicUrl("10.20.1.7", 4029)),
        ("asic://[::1]:4029?http=8080", AsicUrl("::1", 4029, 8080)),
        ("asic://miner?http=none&cred=farm", AsicUrl("miner", 4028, 0, "farm")),
    ],
)
def test_addresses_are_read(url: str, read: AsicUrl) -> None:
    assert parse_url(url) == read


@pytest.mark.parametrize(
    "url",
    [
        "10.20.1.7",
        "http://10.20.1.7",
        "asic://",
        "asic://h:99999",
        "asic://h?http=0",
        "asic://h?http=x",
        "asic://h?a=1",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected|Port|port|unknown"):
        parse_url(url)


@pytest.mark.parametrize("url", ["asic://root:hunter2@10.20.1.7", "http://root:hunter2@h", "asic://root:hunter2@[::"])
def test_a_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="no log-in") as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


def test_passwords_come_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "farm.txt").write_text("s3cret\n")
    sources = {"a": Source(user="root", password_file="farm.txt"), "b": Source(user="op", password_env="MINER_PW")}
    loaded = load_credentials(sources, base=tmp_path, environ={"MINER_PW": "other"})
    assert loaded == {"a": Credentials("root", "s3cret"), "b": Credentials("op", "other")}
    assert "s3cret" not in repr(loaded)


@pytest.mark.parametrize(
    "source", [Source(password_file="absent"), Source(password_env="ABSENT"), Source(password_file="empty")]
)
def test_a_missing_password_is_named(tmp_path: Path, source: Source) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(CredentialError, match="credentials farm"):
        load_credentials({"farm": source}, base=tmp_path, environ={})


def test_a_log_in_named_in_an_address_comes_from_the_environment() -> None:
    environ = {"TIZGIN_ASIC_FARM_2": "op:a:b", "TIZGIN_ASIC_OLD": "only-a-password", "TIZGIN_ASIC_EMPTY": "root:"}
    assert credentials_from_environment("farm-2", environ) == Credentials("op", "a:b")
    assert credentials_from_environment("old", environ) == Credentials("root", "only-a-password")
    for name in ("empty", "absent", "", "a b", "x/../y"):
        with pytest.raises(CredentialError, match="credentials"):
            credentials_from_environment(name, environ)


async def test_a_probe_with_a_log_in_that_is_not_there_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIZGIN_ASIC_FARM", raising=False)
    with pytest.raises(ValueError, match="TIZGIN_ASIC_FARM is not set"):
        await probe("asic://192.0.2.1?cred=farm", family="luxos")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--credentials", "miners"], "expected both"),
        (["--config", "site.yaml"], "expected both"),
        (["--credentials", "others", "--config", "config/examples/small.yaml"], "seen miners"),
        (["--credentials", "miners", "--config", "config/examples/small.yaml"], "password file"),
        (["--credentials", "miners", "--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_the_command_names_what_is_wrong_with_a_log_in(given: list[str], said: str) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tizgin", "probe", "asic://192.0.2.1", *given]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr.replace("\n", " ")


def test_an_address_behind_a_translation_has_no_other_interfaces() -> None:
    stock = families()["antminer-stock"]
    assert address_for(stock, "h", 4028, None, None) == Address("h")
    assert address_for(stock, "h", 24001, None, None) == Address("h", 24001, None, UNREACHABLE)
    assert address_for(stock, "h", 24001, None, 25001) == Address("h", 24001, None, 25001)
    assert address_for(stock, "h", 4028, "web", 80) == Address("h", None, "web", 80)
    assert address_for(families()["bitaxe"], "h", 24001, None, None).http_port == 24001


def test_every_family_makes_its_driver_and_an_unknown_one_is_refused() -> None:
    for family in families():
        assert driver_for(family, "127.0.0.1").family == family
    with pytest.raises(ValueError, match=r"antminer-stock, .*cgminer, .*luxos"):
        driver_for("antminer-stok", "127.0.0.1")
