"""The HTTP interface of central (OpenAPI at ``/openapi.json``).

Lives here: routes, their models, and the guard in front of all of them.
May not live here: a route that signs, or one that answers a page of another origin.
"""
