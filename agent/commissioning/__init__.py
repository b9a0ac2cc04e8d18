"""Proving outputs on the plant, one at a time, at the request of persons on site.

Lives here: what a person may ask, what is expected of an opening, the judgement of what the meters did, the procedure
itself and its evidence. May not live here: orders (:mod:`agent.curtailment`) and anything that arms an output; a test
only says what was seen, and two persons sign for it.
"""
