"""``python -m verifier.build OUT``: the verifier as one file that a Python and ``cryptography`` can run.

The file has the same bytes wherever and whenever it is built from the same sources: names in order, nothing compressed,
one date. So two people who built it can compare a hash instead of trusting each other.
"""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SHEBANG = b"#!/usr/bin/env python3\n"
START = '''"""The verifier in one file."""

import sys

from verifier.cli import main

if __name__ == "__main__":
    sys.exit(main())
'''
WRONG_USE = 4


def sources() -> dict[str, bytes]:
    """The package's own source files by their names in the archive.

    Raises:
        FileNotFoundError: it does not run from source files.
    """
    folder = Path(__file__).parent
    paths = sorted(folder.rglob("*.py"))
    found = {f"verifier/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}
    if "verifier/verify.py" not in found:
        raise FileNotFoundError(f"{folder}: no source files of the verifier; build it from a checkout")
    return found


def archive(files: Mapping[str, bytes]) -> bytes:
    """The one file, out of the package's files."""
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED, allowZip64=False) as made:
        for name, data in sorted({**files, "__main__.py": START.encode()}.items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            # Line ends of a checkout on another system must not show.
            made.writestr(info, data.replace(b"\r\n", b"\n"))
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; prints the SHA-256 of what was written and returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 1 or given[0].startswith("-"):
        sys.stderr.write("usage: python -m verifier.build OUT\n")
        return WRONG_USE
    out = Path(given[0])
    try:
        data = archive(sources())
        out.write_bytes(data)
        out.chmod(0o755)
    except OSError as error:
        sys.stderr.write(f"verifier.build: {out}: {error.strerror or error}\n")
        return WRONG_USE
    sys.stdout.write(f"{hashlib.sha256(data).hexdigest()}  {out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
