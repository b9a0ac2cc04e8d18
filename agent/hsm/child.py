"""Program of the process that speaks to a security token: a JSON request on its input, a JSON answer, the end.

Request: ``op`` (``make``: the key pair of this label, made where there is none; ``look``: never made; ``sign``),
``module`` (path of the PKCS#11 library), ``token`` and ``key`` (labels), ``pin_file``, and to ``sign`` the key's ``id``
and ``digest`` (SHA-256), both hex. Answer: ``public`` (the point, 65 bytes, hex) with ``id`` and ``made``, both null
where ``look`` finds none; or ``signature`` (r ‖ s, 64 bytes, hex); or ``code`` and ``error``. No answer holds the PIN
or a word of the library's own: of a failure it names the kind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

P256 = bytes.fromhex("06082a8648ce3d030107")
"""DER of the curve's name, as EC_PARAMS holds it."""
MAX_REQUEST = 65_536
MAX_PIN = 256
LIFE_S = 60


class Refused(Exception):
    """The request cannot be answered.

    Args:
        code: ``missing`` (the Python library), ``module``, ``token``, ``pin_file``, ``pin`` (the token refused it),
            ``key`` or ``failed``.
        text: what was seen, what was expected and what to do.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def main() -> None:
    """Answer the request on the input."""
    # What the library prints must not get into the answer, nor into anybody's log.
    out = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    # Whoever asked has given up by then, or is gone.
    signal.alarm(LIFE_S)
    request = json.loads(sys.stdin.buffer.read(MAX_REQUEST))
    try:
        answer = serve(request)
    except Refused as error:
        answer = {"code": error.code, "error": str(error)}
    data = json.dumps(answer).encode()
    while data:
        data = data[os.write(out, data) :]
    # What the library does at the end of a process is not waited for.
    os._exit(0)


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request.

    Raises:
        Refused: there is none; why.
    """
    try:
        library = import_module("pkcs11")
    except ImportError:
        raise Refused(
            "missing", "the library python-pkcs11 is not installed; run: pip install 'tizgin[pkcs11]'"
        ) from None
    token = _token(library, request["module"], request["token"])
    pin = _pin(Path(request["pin_file"]))
    where = f"token {request['token']!r}"
    try:
        with token.open(rw=request["op"] == "make", user_pin=pin) as session:
            if request["op"] == "sign":
                return _sign(library, session, request, where)
            return _pair(library, session, request, where)
    except (library.PinIncorrect, library.PinLenRange, library.PinInvalid, library.PinLocked) as error:
        raise Refused(
            "pin",
            f"{where}: refuses the PIN of {request['pin_file']} ({_kind(error)}); correct the file: it is not tried "
            "again before that, for a token locks itself after some wrong ones",
        ) from None
    except (library.PKCS11Error, OSError) as error:
        raise Refused(
            "failed", f"{where}: {request['op']} failed: {_kind(error)}; is the token in its place?"
        ) from None


def _kind(error: BaseException) -> str:
    """The name of the failure: texts of a library are nobody's word."""
    return type(error).__name__


def _token(library: Any, module: str, label: str) -> Any:
    if not Path(module).is_file():
        raise Refused("module", f"{module}: no such PKCS#11 library; expected the path of the token's .so")
    try:
        found = library.lib(module)
    except (library.PKCS11Error, OSError) as error:
        raise Refused("module", f"{module}: cannot be loaded as a PKCS#11 library: {_kind(error)}") from None
    seen: list[str] = []
    fitting = []
    try:
        for slot in found.get_slots(token_present=True):
            token = slot.get_token()
            seen.append(str(token.label)[:32])
            if token.label == label:
                fitting.append(token)
    except library.PKCS11Error as error:
        raise Refused("token", f"{module}: slots cannot be read: {_kind(error)}") from None
    if len(fitting) != 1:
        names = ", ".join(repr(name) for name in seen[:8]) or "none"
        raise Refused("token", f"expected one token {label!r}, found {len(fitting)}; tokens present: {names}")
    return fitting[0]


def _pin(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise Refused("pin_file", f"{path}: readable by others; run: chmod 600 {path}")
        raw = path.read_bytes()[: MAX_PIN + 2]
    except OSError as error:
        raise Refused("pin_file", f"{path}: the PIN cannot be read: {error.strerror}") from None
    pin = raw.removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = pin.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(pin) > MAX_PIN or "\n" in text:
        raise Refused("pin_file", f"{path}: expected the PIN as one line of 1 to {MAX_PIN} bytes")
    return text


def _private(library: Any, session: Any, label: str, key_id: str | None) -> list[Any]:
    names = library.Attribute
    wanted = {names.CLASS: library.ObjectClass.PRIVATE_KEY, names.LABEL: label}
    if key_id is not None:
        wanted[names.ID] = bytes.fromhex(key_id)
    return list(session.get_objects(wanted))


def _sign(library: Any, session: Any, request: dict[str, Any], where: str) -> dict[str, Any]:
    keys = _private(library, session, request["key"], request["id"])
    if len(keys) != 1:
        raise Refused("key", f"{where}: expected one key {request['key']!r} with id {request['id']}, found {len(keys)}")
    signature = keys[0].sign(bytes.fromhex(request["digest"]), mechanism=library.Mechanism.ECDSA)
    return {"signature": bytes(signature).hex()}


def _pair(library: Any, session: Any, request: dict[str, Any], where: str) -> dict[str, Any]:
    label, made = request["key"], False
    keys = _private(library, session, label, None)
    if not keys and request["op"] == "make":
        _generate(library, session, label)
        keys, made = _private(library, session, label, None), True
    if not keys:
        return {"public": None, "id": None, "made": False}
    if len(keys) != 1:
        raise Refused("key", f"{where}: {len(keys)} keys are called {label!r}, expected one; give another label")
    private, names = keys[0], library.Attribute
    held = {name: bool(private[name]) for name in (names.SENSITIVE, names.EXTRACTABLE, names.SIGN)}
    if held != {names.SENSITIVE: True, names.EXTRACTABLE: False, names.SIGN: True}:
        told = ", ".join(f"{name.name} {value}" for name, value in held.items())
        raise Refused(
            "key", f"{where}: key {label!r} is {told}; expected SENSITIVE True, EXTRACTABLE False, SIGN True: a key "
            "that can leave the token is no better than a file; give the label of another key, or of none to make one",
        )  # fmt: skip
    key_id = bytes(private[names.ID])
    wanted = {names.CLASS: library.ObjectClass.PUBLIC_KEY, names.LABEL: label, names.ID: key_id}
    publics = list(session.get_objects(wanted))
    if len(publics) != 1:
        raise Refused("key", f"{where}: expected one public key beside the private one {label!r}, found {len(publics)}")
    if private[names.KEY_TYPE] != library.KeyType.EC or bytes(publics[0][names.EC_PARAMS]) != P256:
        raise Refused("key", f"{where}: key {label!r} is not an EC key on P-256 (prime256v1)")
    point = bytes(publics[0][names.EC_POINT]).removeprefix(b"\x04\x41")
    if len(point) != 65 or point[0] != 4:
        raise Refused("key", f"{where}: key {label!r}: its public point is not uncompressed")
    return {"public": point.hex(), "id": key_id.hex(), "made": made}


def _generate(library: Any, session: Any, label: str) -> None:
    """A key pair that lives and dies in the token.

    tpm2-pkcs11 makes only keys that may do everything, and answers a request for less with a general error.
    """
    names, flags = library.Attribute, library.MechanismFlag
    curve = session.create_domain_parameters(library.KeyType.EC, {names.EC_PARAMS: P256}, local=True)
    key_id, signs = os.urandom(16), flags.SIGN | flags.VERIFY
    for uses, last in ((signs, False), (signs | flags.ENCRYPT | flags.DECRYPT, True)):
        try:
            curve.generate_keypair(
                id=key_id,
                label=label,
                store=True,
                capabilities=uses,
                private_template={names.SENSITIVE: True, names.EXTRACTABLE: False},
            )
        except (library.GeneralError, library.TemplateInconsistent):
            if last or _private(library, session, label, None):
                raise
        else:
            return


if __name__ == "__main__":
    main()
