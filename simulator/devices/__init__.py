"""Servers of simulated devices: real protocols on real sockets, physics left to the machine or plant behind them.

Nothing here decides anything, and nothing here knows why a device is told what it is told.
"""
