"""The sides of the field-bus measurement: the device that all of them ask, ours, the floors, and the peers.

Each is a process of its own. Nothing here is part of the product.
"""
