"""ASIC miners: reading them by the thousand, and asking them to sleep and to wake.

Here live the transports (``exchange``, one request on one bare socket, and on it ``cgminer`` JSON sockets and ``http``
with ``digest`` log-in), the parser for what miners really send (``repair``, ``fields``, ``cgminer_status``), one folder
per firmware family (``family`` says what one is, ``given`` what its driver is given, ``reading`` how a status keeps to
its deadline), ``identify`` (the list of them, and which of them answers somewhere), ``recheck`` (finding out again when
answers stop fitting), ``probe``, the rules of a write in one place (``sending`` beneath ``control``, ``work_mode`` and
``power``; ``prior``, ``outcome``); and what there is for thousands at once: ``fleet`` (the poller), ``fanout`` (one
command to many), ``ladder`` (how far a command has come), ``lanes`` (who may go next).

Decisions about *whether* a machine should sleep do not live here, nor does any proof that it does: an answer of a miner
is never proof of a power drop, only a meter is.
"""
