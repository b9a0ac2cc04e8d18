"""Pages for people: all sites, one site. They show; they never sign and never switch.

Lives here: NiceGUI pages over :class:`central.service.CentralService`, their texts and looks.
May not live here: order keys, and requests to any other host.
"""
