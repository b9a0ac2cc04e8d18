"""From MQTT to the stores: connection, sorting of what arrives, one commit per group, acknowledgements, requests.

Lives here: everything that speaks MQTT on central's side.
May not live here: SQL beyond calls into :mod:`central.store`, and anything a person looks at.
"""
