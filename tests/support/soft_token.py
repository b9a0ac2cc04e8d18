"""A security token in a folder: SoftHSM2, which keeps its store where ``SOFTHSM2_CONF`` says."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.hsm.process import Token

PIN = "4711-nobody-may-see-this"
LABEL = "site"
KEY = "tizgin-log"
MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
)
MODULE = next((path for path in MODULES if Path(path).exists()), None)

_MAKE = """
import sys, pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag
module, pin, label, curve, extractable = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label="site")
with token.open(rw=True, user_pin=pin) as session:
    params = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: bytes.fromhex(curve)}, local=True)
    params.generate_keypair(id=label.encode(), label=label, store=True,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        private_template={Attribute.SENSITIVE: extractable == "no", Attribute.EXTRACTABLE: extractable == "yes"})
"""


@dataclass(frozen=True)
class SoftToken:
    """One token, made by :func:`soft_token`."""

    folder: Path
    module: str

    @property
    def pin_file(self) -> Path:
        return self.folder / "pin"

    def token(self, **changes: Any) -> Token:
        settings = {"module": self.module, "label": LABEL, "key": KEY, "pin_file": self.pin_file}
        return Token(**settings | changes)

    def settings(self, key: str = KEY) -> dict[str, Any]:
        """What the site file says."""
        place = {"module": self.module, "token": LABEL, "key": key, "pin_file": str(self.pin_file)}
        return {"log": {"pkcs11": place}}

    def write_pin(self) -> None:
        self.pin_file.touch(mode=0o600)
        self.pin_file.write_text(PIN + "\n")

    def pull(self) -> None:
        """The token leaves its slot."""
        (self.folder / "tokens").rename(self.folder / "pulled")
        (self.folder / "tokens").mkdir()

    def put_back(self) -> None:
        (self.folder / "tokens").rmdir()
        (self.folder / "pulled").rename(self.folder / "tokens")

    def generate(self, label: str, *, curve: str = "06082a8648ce3d030107", extractable: bool = False) -> None:
        """A key pair made by somebody else."""
        args = [self.module, PIN, label, curve, "yes" if extractable else "no"]
        subprocess.run([sys.executable, "-c", _MAKE, *args], check=True, timeout=30)


def soft_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    """A new token in this folder; the test is skipped where SoftHSM2 or the library is not installed."""
    if MODULE is None or shutil.which("softhsm2-util") is None:
        pytest.skip("softhsm2 is not installed: run deploy/setup.sh test")
    if importlib.util.find_spec("pkcs11") is None:
        pytest.skip("python-pkcs11 is not installed: run deploy/setup.sh test")
    (folder / "tokens").mkdir(parents=True)
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(config))
    args = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "12345678"]
    subprocess.run(args, check=True, capture_output=True, timeout=30)
    made = SoftToken(folder, MODULE)
    made.write_pin()
    return made
