"""Programs of the grid operator and the regulator, each under its own keys.

Lives here: the order desk, the gateway, the witness, the registrar, over ``config`` and ``wire`` alone.
May not live here: anything of ``central`` or ``agent``; these programs must be installable and trustworthy without
them.
"""
