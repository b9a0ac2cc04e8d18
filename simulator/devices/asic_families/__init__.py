"""Simulated miners by firmware family: each file speaks one family's protocol over a machine model.

Nothing here decides what a machine does; that is the model's (:mod:`simulator.devices.models`).
"""
