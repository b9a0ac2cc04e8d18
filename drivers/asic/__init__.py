"""ASIC miners: reading them by the thousand, and asking them to sleep and to wake.

Here live the transports (``cgminer`` JSON sockets, ``http`` with digest log-in), the parser for what miners really send
(``repair``, ``fields``, ``cgminer_status``), one folder per firmware family, ``identify``, ``fleet`` (the poller) and
``probe``. Decisions about *whether* a machine should sleep do not live here, nor does any proof that it does: an answer
of a miner is never proof of a power drop, only a meter is.
"""
