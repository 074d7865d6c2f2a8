#!/usr/bin/env python3
"""A rolling restart of two replicas behind a balancer that never tries twice: no request fails, and answers never pause.

    deploy/drills/rolling.py target/release/sconce haproxy|nginx [ROUNDS]

A round restarts one replica after the other, under 300 requests a second.
"""

import asyncio
import signal
import sys

from balancer import Haproxy, Nginx
from common import Record, Replica, load, longest_gap, verdict

BALANCERS = {"haproxy": Haproxy, "nginx": Nginx}


async def restarts(replicas, balancer, record, rounds):
    stop = asyncio.Event()
    asking = asyncio.create_task(load(balancer.port, record, 3600, clients=8, rate=300, stop=stop))
    codes = set()
    await asyncio.sleep(0.5)
    for _ in range(rounds):
        for number, replica in enumerate(replicas):
            await asyncio.to_thread(balancer.leave, number)
            replica.signal(signal.SIGTERM)
            code, _ = await asyncio.to_thread(replica.wait)
            codes.add(code)
            await asyncio.to_thread(replica.start)
            await asyncio.to_thread(balancer.join, number)
    stop.set()
    await asking
    return codes


def main():
    program, name = sys.argv[1], sys.argv[2]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    # Longer than the balancer needs to see it: two checks, 100 ms apart, each of at most 100 ms.
    replicas = [Replica(program, "http.drain_delay_ms=500", "engine.instances=1", "http.threads=1") for _ in range(2)]
    for replica in replicas:
        replica.start()
    balancer = BALANCERS[name](replicas)
    record = Record()
    try:
        balancer.start()
        codes = asyncio.run(restarts(replicas, balancer, record, rounds))
    finally:
        balancer.end()
        for replica in replicas:
            replica.kill()
    gap = longest_gap(record)
    fates = record.fates()
    print(f"measured: {rounds} rolling restarts of two replicas behind {name}: {len(record.requests)} requests, "
          f"{len(record.failures())} failed, longest pause {gap * 1e3:.0f} ms")
    faults = []
    if record.failures():
        faults.append(f"answers {dict(fates)}")
    if codes != {0}:
        faults.append(f"exit codes {codes}")
    verdict(f"rolling {name}", faults)


if __name__ == "__main__":
    main()
