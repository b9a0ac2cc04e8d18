"""The gateway: a program of the grid operator that signs per-site orders of one plan within a mandate of two persons.

Lives here: plans, their checks, shares, the pace, the journal of what was signed, judging what sites answer.
May not live here: a right to restore. Release of a plan is a person's act at the desk.
"""
