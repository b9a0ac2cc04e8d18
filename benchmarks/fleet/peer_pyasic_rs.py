"""pyasic-rs as the client: run by the Python of its own environment, imports nothing of ours. Prints one JSON line."""

import asyncio
import ipaddress
import json
import os
import resource
import sys
import time


async def main(count, rounds):
    from pyasic_rs import MinerFactory

    first = int(ipaddress.IPv4Address("127.16.0.1"))
    factory = MinerFactory()
    gate = asyncio.Semaphore(100)

    async def find(number):
        async with gate:
            return await factory.get_miner(str(ipaddress.IPv4Address(first + number)))

    miners = await asyncio.gather(*(find(number) for number in range(count)))
    if any(miner is None for miner in miners):
        raise RuntimeError("a machine was not recognised")

    async def one(miner):
        async with gate:
            return await miner.get_data()

    await asyncio.gather(*(one(miner) for miner in miners))
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    for _ in range(rounds):
        await asyncio.gather(*(one(miner) for miner in miners))
    polls = rounds * count
    return {
        "polls_per_s": round(polls / (time.monotonic() - began_s), 1),
        "cpu_ms_per_machine": round((time.process_time() - began_cpu_s) / polls * 1000, 3),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    print(json.dumps({"pyasic_rs": asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))}), flush=True)
    os._exit(0)  # its threads were seen to abort the interpreter's own exit
