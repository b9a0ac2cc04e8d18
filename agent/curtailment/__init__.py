"""Orders: who may give them, what is shed for them, proof at the meter, and the staged return.

``reception`` takes envelopes and answers, ``intake`` judges them, ``engine`` runs the state machine: ``waves`` and
``planner`` choose what goes next, ``shed`` and ``restore`` move it with a durable intent before every output, ``gates``
say what may move, ``proof`` says whether the meter agrees. САОН has no output here by construction.
"""
