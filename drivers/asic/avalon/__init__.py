"""Canaan's Avalon miners (A7 to A15, Nano, Mini, Q): everything on the JSON socket, soft off and on by their clock."""

from drivers.asic.avalon.driver import Avalon
from drivers.asic.avalon.family import FAMILY

__all__ = ["FAMILY", "Avalon"]
