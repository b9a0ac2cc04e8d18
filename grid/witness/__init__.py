"""A witness of sites' logs, run by the system operator or the regulator under its own key.

It sees sizes and hashes, no meter data, and cosigns only what continues what it cosigned before. Here live its store
and its faces: HTTP (C2SP tlog-witness), and the same as a client of central's broker. What it decides stands in
:mod:`wire.witness`. It never talks to an agent.
"""
