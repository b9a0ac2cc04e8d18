"""Everything that speaks to a device: one folder per kind, profiles as data, capabilities as small protocols.

Nothing here knows of orders, records or central. A driver says what it saw and what it was answered; what that means is
decided elsewhere.
"""
