#!/usr/bin/env python3
"""One of two replicas dies or freezes: only what it held fails, and the balancer leaves it within 400 ms.

    deploy/drills/lost_replica.py target/release/sconce [ROUNDS]

haproxy asks for /health/ready every 100 ms and never tries a request twice.
"""

import asyncio
import signal
import sys
import time

from balancer import Haproxy
from common import Record, Replica, load, verdict

LIMIT = 0.4
RATE = 300
CLIENTS = 32


async def round_of(kind, replicas, balancer):
    """Requests begun before the loss, while haproxy finds it, and after; seconds until haproxy has left the replica."""
    record, stop = Record(), asyncio.Event()
    asking = asyncio.create_task(load(balancer.port, record, 60, clients=CLIENTS, rate=RATE, stop=stop))
    await asyncio.sleep(0.5)
    victim = replicas[0]
    lost = time.monotonic()
    victim.signal(signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
    while await asyncio.to_thread(balancer.in_use) != 1:
        await asyncio.sleep(0.005)
    left = time.monotonic()
    await asyncio.sleep(0.5)
    if kind == "kill":
        await asyncio.to_thread(victim.wait)
        await asyncio.to_thread(victim.start)
    else:
        victim.signal(signal.SIGCONT)
    await asyncio.to_thread(balancer.join, 0)
    back = time.monotonic()
    await asyncio.sleep(0.5)
    stop.set()
    await asking
    outside = [request for request in record.failures() if request[1] < lost or request[0] > left]
    return left - lost, len(record.failures()), outside, sum(begun > back for begun, _, _ in record.requests)


def main():
    program, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10
    replicas = [Replica(program, "engine.instances=1", "http.threads=1") for _ in range(2)]
    for replica in replicas:
        replica.start()
    # What a lost replica holds is given up as soon as it is known to be lost.
    balancer, faults = Haproxy(replicas, " on-marked-down shutdown-sessions"), []
    try:
        balancer.start()
        for kind in ("kill", "stop"):
            times, failed = [], 0
            for number in range(1, rounds + 1):
                seconds, failures, outside, after = asyncio.run(round_of(kind, replicas, balancer))
                times.append(seconds)
                failed += failures
                if outside:
                    faults.append(f"{kind} {number}: {len(outside)} failed that the replica did not hold: {outside[:3]}")
                if seconds > LIMIT:
                    faults.append(f"{kind} {number}: left after {seconds * 1e3:.0f} ms")
                if not after:
                    faults.append(f"{kind} {number}: nothing was asked after it came back")
            print(f"measured: {rounds} times {kind} of one of two replicas: left after {min(times) * 1e3:.0f} to "
                  f"{max(times) * 1e3:.0f} ms; {failed} requests failed in all, of {RATE} a second")
    finally:
        balancer.end()
        for replica in replicas:
            replica.kill()
    verdict("lost replica", faults)


if __name__ == "__main__":
    main()
