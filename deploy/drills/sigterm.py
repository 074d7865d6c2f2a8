#!/usr/bin/env python3
"""SIGTERM under load, again and again: every request that was accepted is answered.

    deploy/drills/sigterm.py target/release/sconce [ROUNDS]
"""

import asyncio
import random
import signal
import sys

from common import NEVER_RAN, Record, Replica, load, verdict


async def one(replica, record, chance):
    """Half of the clients keep their connections, half open one for each request."""
    replica.start()
    stop = asyncio.Event()
    kept = asyncio.create_task(load(replica.port, record, 60, clients=6, stop=stop))
    fresh = asyncio.create_task(load(replica.port, record, 60, clients=6, stop=stop, keep=False))
    await asyncio.sleep(0.1 + 0.3 * chance.random())
    replica.signal(signal.SIGTERM)
    code, stopped = await asyncio.to_thread(replica.wait)
    stop.set()
    await asyncio.gather(kept, fresh)
    return code, stopped


def main():
    program, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100
    replica = Replica(program, "http.drain_delay_ms=200")
    faults, answered, refused, chance = [], 0, 0, random.Random(1)
    try:
        for number in range(1, rounds + 1):
            record = Record()
            code, stopped = asyncio.run(one(replica, record, chance))
            fates = record.fates()
            refused += fates.pop(NEVER_RAN, 0)
            answered += fates.pop(200, 0)
            if code != 0 or fates or stopped.get("dropped") != 0:
                faults.append(f"round {number}: exit code {code}, lost {dict(fates)}, dropped {stopped.get('dropped')}")
    finally:
        replica.kill()
    print(f"measured: {rounds} times SIGTERM under load: {answered} answered, {len(faults)} rounds with a loss; "
          f"{refused} connections refused after the end")
    verdict("sigterm", faults)


if __name__ == "__main__":
    main()
