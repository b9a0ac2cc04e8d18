"""What a site file may not say, one subject per file; :mod:`config.check` runs them in order.

Every rule is a function of :class:`config.rules.facts.Facts` that yields problems. No rule reads a file, speaks to a
device or imports a driver.
"""
