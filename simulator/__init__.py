"""One physical plant per site, spoken to over the devices' real protocols.

What lives here: the physics (:mod:`simulator.plant` and what it is made of), servers on loopback sockets that any
foreign client can read (:mod:`simulator.devices`), faults that tests and the demo switch on at run time
(:mod:`simulator.faults`), and :class:`simulator.site.SimulatedSite`, which starts all of it from one site file.

What may not: anything that decides. The simulator never plans, never curtails and knows nothing of orders; it obeys
coils, sessions and SNMP writes as the real devices would. Agent and central never import it.
"""
