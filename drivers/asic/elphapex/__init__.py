"""Elphapex (DG1 and others, Scrypt): Bitmain's pages under other names, behind a digest log-in. Read only."""

from drivers.asic.elphapex.driver import FAMILY, Elphapex

__all__ = ["FAMILY", "Elphapex"]
