"""The log key in a security token (PKCS#11: TPM, HSM, SoftHSM): the extra ``tizgin[pkcs11]``.

``child`` is the program that loads the token's library and speaks to it: one request, one answer, then it ends. A
native library that hangs or crashes takes nobody with it, and each request opens its session anew, so that a token that
was pulled is used again as soon as it is back. ``process`` starts and bounds it, ``key`` is the key as the
agent uses it. ``child`` imports the standard library and ``pkcs11`` alone.
"""
