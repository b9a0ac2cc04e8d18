"""Are the readings plausible? Judged from the bundle's own records alone, by constants of this program.

Signatures show that nothing was changed since; they cannot show that a meter was right. The rules V01 to V26 look at
what the records say of each other. :mod:`verifier.plausible.rules` is their table.
"""
