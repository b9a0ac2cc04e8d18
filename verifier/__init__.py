"""The offline checker of evidence bundles. It shares no code with the rest, on purpose.

Lives here: the checks themselves, over the standard library and ``cryptography`` alone (a test holds it).
May not live here: an import of any other own package, network access, trust in anything but the trust file.
"""
