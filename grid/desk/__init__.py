"""The order desk: a loopback page from the dispatcher's own installation.

Lives here: composing, showing in words, signing, posting and following orders; verifying what comes back.
May not live here: anything that runs or embeds what central serves. Central's text is data: decoded, bounded, escaped.
"""
