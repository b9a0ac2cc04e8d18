"""What a person writes: the site file (an electrical graph) and the settings of central.

Models, loader, graph arithmetic, checks, examples and JSON Schema live here. No device is spoken to from here, and
nothing here depends on how the agent or central use it.
"""
