"""The way to central: two MQTT connections, delivery of what is on disk, and what comes down.

Nothing is kept here that must survive: the MQTT client's memory is never trusted.
"""
