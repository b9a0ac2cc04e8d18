"""``python -m tizgin``: the same as the ``tizgin`` command."""

from __future__ import annotations

from tizgin.cli import main

if __name__ == "__main__":
    main()
