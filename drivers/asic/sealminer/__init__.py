"""Bitdeer's Sealminer (bdminer): cgminer's JSON with wide ``stats``; suspend and restart on the same socket."""

from drivers.asic.sealminer.driver import Sealminer
from drivers.asic.sealminer.family import FAMILY

__all__ = ["FAMILY", "Sealminer"]
