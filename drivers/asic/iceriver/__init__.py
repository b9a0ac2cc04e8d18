"""IceRiver (kHeavyHash and others): read by its line socket. Its firmware cannot sleep: only a switch stops it."""

from drivers.asic.iceriver.driver import IceRiver, ask_info
from drivers.asic.iceriver.family import FAMILY, INFO_PAGE

__all__ = ["FAMILY", "INFO_PAGE", "IceRiver", "ask_info"]
