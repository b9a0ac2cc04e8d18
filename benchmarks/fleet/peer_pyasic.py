"""pyasic as the client: run by the Python of its own environment, imports nothing of ours.

Arguments: how many machines, counted from 127.16.0.1, and how many rounds. Prints one JSON line: full ``get_data()``,
and ``get_data`` of the fields that the JSON socket gives.
"""

import asyncio
import ipaddress
import json
import resource
import sys
import time
import warnings


async def measure(miners, rounds, **options):
    gate = asyncio.Semaphore(100)

    async def one(miner):
        async with gate:
            return await miner.get_data(**options)

    await asyncio.gather(*(one(miner) for miner in miners[:10]))
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    for _ in range(rounds):
        answers = await asyncio.gather(*(one(miner) for miner in miners))
        if any(answer.hashrate is None for answer in answers):
            raise RuntimeError("a machine gave no hash rate")
    polls = rounds * len(miners)
    return {
        "polls_per_s": round(polls / (time.monotonic() - began_s), 1),
        "cpu_ms_per_machine": round((time.process_time() - began_cpu_s) / polls * 1000, 3),
    }


async def main(count, rounds):
    import pyasic
    from pyasic.miners.data import DataOptions

    first = int(ipaddress.IPv4Address("127.16.0.1"))
    hosts = [str(ipaddress.IPv4Address(first + number)) for number in range(count)]
    known = await pyasic.get_miner(hosts[0])
    miners = [type(known)(host) for host in hosts]
    socket_fields = [
        DataOptions.HASHRATE,
        DataOptions.HASHBOARDS,
        DataOptions.FANS,
        DataOptions.UPTIME,
        DataOptions.POOLS,
    ]
    full = await measure(miners, rounds)
    socket = await measure(miners, rounds, include=socket_fields)
    rss_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return {"pyasic": {**full, "rss_mb": rss_mb}, "pyasic_socket_only": socket}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))))
