"""Bitmain's own firmware on S17 to S23: read by JSON socket, put to sleep and woken through its web interface."""

from drivers.asic.antminer_stock.conf import FAMILY
from drivers.asic.antminer_stock.driver import AntminerStock

__all__ = ["FAMILY", "AntminerStock"]
