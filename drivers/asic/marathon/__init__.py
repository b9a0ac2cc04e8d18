"""Marathon's firmware (MARAFW): web interface with digest log-in, work mode and power target in one configuration."""

from drivers.asic.marathon.driver import Marathon
from drivers.asic.marathon.family import FAMILY

__all__ = ["FAMILY", "Marathon"]
