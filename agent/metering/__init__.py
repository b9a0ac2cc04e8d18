"""Interval metering: boundary readings of cumulative registers become one interval or one gap per slot.

``slots`` is arithmetic; ``closer`` reads at the boundaries and writes records. No estimate is ever made here.
"""
