#!/usr/bin/env python3
"""From exec to the first /health/ready that says yes, with the shipped models.

    deploy/drills/startup.py target/release/sconce [STARTS]
"""

import statistics
import sys

from common import Replica


def main():
    program, starts = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
    replica, times = Replica(program, "http.drain_delay_ms=0"), []
    try:
        for _ in range(starts):
            times.append(replica.start() * 1e3)
            replica.stop()
    finally:
        replica.kill()
    print(f"measured: {starts} starts: ready after {statistics.median(times):.0f} ms (median), "
          f"{min(times):.0f} to {max(times):.0f} ms")


if __name__ == "__main__":
    main()
