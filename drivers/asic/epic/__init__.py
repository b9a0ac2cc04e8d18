"""ePIC's PowerPlay (UMC) on Antminers and its own control boards: HTTP in the place of the JSON socket."""

from drivers.asic.epic.driver import Epic
from drivers.asic.epic.family import FAMILY

__all__ = ["FAMILY", "Epic"]
