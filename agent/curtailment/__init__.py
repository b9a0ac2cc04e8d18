"""Orders: who may give them, what is shed for them, proof at the meter, and the staged return.

``reception`` takes envelopes and answers, ``intake`` judges them, ``allowance`` knows what each may order alone.
``engine`` runs the state machine, ``returning`` its way back: ``targets`` say what is allowed now, ``waves`` and
``planner`` choose what goes next, ``shed`` and ``restore`` move it with a durable intent before every output.
``gates``, ``cooling``, ``wear``, ``voltage`` and ``power_return`` guard it, ``proof`` says whether the meter agrees,
``telling`` and ``account`` write down what was. ``curtailable`` and ``forecast`` look at the same candidates and move
nothing. САОН has no output here by construction.
"""
