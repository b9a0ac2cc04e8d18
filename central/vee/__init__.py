"""Plausibility of verified records: rules V01–V26, their thresholds, and a signed log of the verdicts.

Rules are pure: typed slots of one site in, findings out. ``reader`` builds the slots from the database, ``judge`` runs
the rules, ``book`` appends what they say to central's own log, ``daily`` does so after each day.
"""
