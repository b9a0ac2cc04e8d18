"""The collector's side: broker, collector, storage, evidence, dispatch view, API, pages.

Lives here: what runs at the operator of many sites, over ``config`` and ``wire`` alone.
May not live here: device drivers, agent code, and any key or function that could sign an order; orders are signed in
``grid`` and only relayed here.
"""
