"""Which machines stand on site, to whom they belong and for which pool they work, against what is on paper.

``tables`` and ``importing`` read the register list that a person brings, ``identity`` says when two spellings are one
machine, ``reconcile`` compares register and site one machine at a time, ``papers`` counts equipment for the papers,
``pools`` judges pool addresses, ``workdays`` knows the country's working days, ``grouped`` and ``watch`` turn changes
into few signed events. Comparing and judging are pure; only ``watch``, ``seen`` and ``poll`` touch clock, disk or
network. Nothing here writes to a machine, and no wallet or log-in leaves this package: accounts go out as a worker's
name or a digest.
"""
