"""Interval metering: boundary readings of cumulative registers become one interval or one gap per slot.

``slots`` is the arithmetic of a slot, ``counter`` of a register, ``belief`` of whether a reading can be; ``supply``
knows which meters are dark behind an open switch; ``closer`` reads at the boundaries and writes records; ``exchange``
takes a person's word on a replaced device; ``shares`` and ``standing`` say what the newest slot means for the site.
No estimate is ever made here, and nothing is ever written to a meter.
"""
