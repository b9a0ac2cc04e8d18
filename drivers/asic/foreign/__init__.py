"""Machines read by the library ``pyasic``, in a process of its own: the extra ``tizgin[pyasic]``.

``process`` owns the child (spawned, bounded, killed and started anew when stuck), ``reader`` is the miner driver,
``frames`` what both sides say to each other, ``answers`` turns what the child says into a status, ``child`` is the
program of the child and ``guard`` what keeps it from speaking to anybody but the machine asked. The library is
imported in the child alone, and nothing here writes to a machine. ``child``, ``guard`` and ``frames`` import only the
standard library: the child may run in another environment than the agent.
"""
