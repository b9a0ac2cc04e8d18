"""Orders: who may give them, what is shed for them, proof at the meter, and the staged return.

``intake`` judges, ``planner`` chooses, ``gates`` say what may move, ``engine`` runs the state machine with a durable
intent before every output. САОН has no output here by construction.
"""
