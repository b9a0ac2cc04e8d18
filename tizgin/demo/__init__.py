"""The demo: whole simulated sites, central and a dispatcher on one machine, as real processes of the real commands.

Lives here: the generated site files, the key ceremony, the commissioning of the simulated outputs, supervision of the
child processes, the dispatcher of the unattended run, the count of edge against central, and the report.
May not live here: anything that a real installation needs. The demo uses the product; the product never uses the demo.
"""
