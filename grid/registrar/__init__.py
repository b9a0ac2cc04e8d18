"""The registrar: who may order what where, which site has which keys, reservations and metering points.

Lives here: turning the YAML a person writes into the signed register, its checks, the registrar's key.
May not live here: any network access. The registrar's computer need not be connected to anything.
"""
