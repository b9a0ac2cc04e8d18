"""Telemetry behind one narrow interface, and the embedded store that keeps it.

Lives here: the protocol :class:`central.telemetry.protocol.TelemetryStore` and its implementations.
May not live here: evidence and energy that somebody pays for; sums here are float64.
"""
