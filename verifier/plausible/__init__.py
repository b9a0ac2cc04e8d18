"""Are the readings plausible? Judged from the bundle's own records alone, by constants of this program.

Signatures show that nothing was changed since; they cannot show that a meter was right. The rules V01 to V26 look at
what the records say of each other. Where to read what:

* :mod:`rules <verifier.plausible.rules>`: the table of rules and their constants.
* :mod:`around <verifier.plausible.around>`: what the site's own streams tell the rules; read first, once.
* :mod:`point <verifier.plausible.point>`: one meter, record by record: V06, V12, V16, V18 and V24 there; V07, V09 and
  V11 in ``still``; V13, V17 and V23 in ``side`` and ``signs``; V01, V04 and V25 in ``gaps``; V08 in ``spikes``.
* :mod:`site <verifier.plausible.site>`: meters against each other: V19 and V20 there, V07, V21 and V22 in ``feeders``;
  a change against the past (V20, V21) in ``change``.
* :mod:`conclude <verifier.plausible.conclude>`: the table, the grades, and V02, V03, V05, V10, V14, V15 and V26, which
  other checks of the verifier see to.
* ``bound`` reads a bind, ``said`` collects findings, ``kept`` is what remains of a point, ``table`` what is printed.
"""
