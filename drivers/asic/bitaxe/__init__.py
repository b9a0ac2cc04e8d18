"""ESP-Miner (AxeOS) on Bitaxe, NerdAxe and their kin: one page over HTTP, pause and resume in newer versions."""

from drivers.asic.bitaxe.driver import Bitaxe
from drivers.asic.bitaxe.family import FAMILY

__all__ = ["FAMILY", "Bitaxe"]
