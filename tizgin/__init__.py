"""The command line and the demo: the one package that may use all the others, and does so lazily.

Lives here: the ``tizgin`` command (:mod:`tizgin.cli`), one module per sub-command (:mod:`tizgin.commands`), the demo
that starts everything, and errors meant for people (:mod:`tizgin.errors`).
May not live here: anything another package needs. Nothing imports ``tizgin``; it knows no protocol, no storage, no
rule of curtailment. Nothing is imported before the sub-command that needs it runs, so ``tizgin verify`` loads only
``verifier``.
"""

__version__ = "0.1.0"
