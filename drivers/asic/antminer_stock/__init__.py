"""Bitmain's own firmware on S17 to S23: read by JSON socket, put to sleep and woken through its web interface."""

from drivers.asic.antminer_stock.driver import AntminerStock
from drivers.asic.antminer_stock.family import FAMILY

__all__ = ["FAMILY", "AntminerStock"]
