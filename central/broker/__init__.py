"""Mosquitto for central: its access list, its configuration, and a supervised child of it.

Lives here: text generated from the registered sites, and the one process that runs it.
May not live here: anything that speaks MQTT; that is :mod:`central.collector`.
"""
