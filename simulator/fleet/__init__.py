"""Thousands of simulated miners in one process: ``python -m simulator.fleet --machines 10000 --mix …``.

Every machine has an address of its own (``127.16.0.1`` and on) behind one listening socket per port, so that a fleet
costs no file descriptors while nobody is connected, and no memory for a machine's server before it is first asked.

What lives here: the machines as bodies with faults (``machine``), what kinds there are (``kinds``), the listening and
the addresses (``fleet``), the loopback door for faults at run time (``control``), the program (``serve``). What may
not: protocols, which are the device servers' (:mod:`simulator.devices`), and a site's electricity, which is the plant's
(:mod:`simulator.plant`).
"""
