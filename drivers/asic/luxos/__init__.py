"""LuxOS: everything on the JSON socket; sleep and wake by ``curtail`` within a session."""

from drivers.asic.luxos.driver import LuxOs
from drivers.asic.luxos.family import FAMILY

__all__ = ["FAMILY", "LuxOs"]
