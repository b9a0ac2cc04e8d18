"""One module per sub-command of ``tizgin``, named like it; the table of them is in :mod:`tizgin.cli`.

Lives here: reading arguments, calling the package that does the work, printing the result.
Every module exposes ``app: typer.Typer``. A group registers its sub-commands with ``@app.command()``; a sub-command
without children registers one function, so ``tizgin read ...`` needs no further word.
A module here imports heavy packages inside its functions where ``--help`` does not need them.
May not live here: logic. A command longer than a screen belongs in the package it calls.
"""
