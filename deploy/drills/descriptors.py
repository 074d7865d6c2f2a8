#!/usr/bin/env python3
"""No file descriptors left: whoever is connected is served, nobody else is let in, and all is well once some are free.

    deploy/drills/descriptors.py target/release/sconce [ROUNDS]

Clients that say nothing take every descriptor that the server may have. Meanwhile it looks at its folders, is asked for its
metrics and for a promotion, and its store writes.
"""

import asyncio
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import ROOT, Client, Record, Replica, load, verdict

# Descriptors that the server may open beyond those that it has when it is ready. Its store alone takes up to nine more, when
# it is asked by several at once.
SPARE = 24
# How long it goes without. The server rests for a second at most before it tries again.
LACK = 3.0
# Processor seconds for each second of a server that nobody asks anything.
IDLE = 0.1


def folder(program, work):
    """The shipped models, the first with a second version."""
    models = Path(work) / "models"
    shutil.copytree(ROOT / "models", models)
    shutil.copytree(models / "mnist" / "1", models / "mnist" / "2")
    subprocess.run([program, "models", "alias", "mnist", "champion", "1", "--models", str(models)], check=True,
                   stdout=subprocess.DEVNULL)
    return models


def processor(process):
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def limit(process):
    """Leaves the server so few descriptors; those that it has stay."""
    highest = max(int(name) for name in os.listdir(f"/proc/{process.pid}/fd"))
    _, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (highest + 1 + SPARE, most))


def silent(port):
    """A connection that says nothing; the kernel takes it even where the server does not."""
    return socket.create_connection(("127.0.0.1", port), timeout=5)


async def on(client, request):
    """The status of another request on a client's kept connection."""
    usual, client.request = client.request, request
    fate = await client.ask()
    client.request = usual
    return fate


def posted(path, body):
    head = f"POST {path} HTTP/1.1\r\nHost: drill\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


async def round_of(replica, faults):
    """Takes all descriptors, gives them back; what clients that stayed were answered, and how long until all was well."""
    record = Record()
    kept = [Client(replica.port, record) for _ in range(4)]
    manager = Client(replica.port, Record())
    for client in (*kept, manager):
        if (fate := await client.ask()) != 200:
            faults.append(f"a client is answered {fate} though there are descriptors")
    silents = [silent(replica.port) for _ in range(3 * SPARE)]
    try:
        # Nobody asks anything: what it uses is what it takes to try again.
        await asyncio.sleep(0.5)
        before, begun = processor(replica.process), time.monotonic()
        await asyncio.sleep(LACK)
        used = (processor(replica.process) - before) / (time.monotonic() - begun)
        if used > IDLE:
            faults.append(f"it uses {used:.2f} of a core to wait")
        if (status := replica.get("/health/live", timeout=0.5)[0]) != 0:
            faults.append(f"there were descriptors left: {status}")
        end = time.monotonic() + LACK
        while time.monotonic() < end:
            await asyncio.gather(*(client.ask() for client in kept))
        for path in ("/health/ready", "/metrics"):
            request = f"GET {path} HTTP/1.1\r\nHost: drill\r\n\r\n".encode()
            if (fate := await on(manager, request)) != 200:
                faults.append(f"{path} is answered {fate}")
        promotion = posted("/v1/models/mnist/promote", '{"version":2,"by":"drill","reason":"drill","force":true}')
        # It needs files: done or not, but answered.
        fate = await on(manager, promotion)
        if fate not in (200, 409, 500, 503):
            faults.append(f"a promotion is answered {fate}")
    finally:
        for one in silents:
            one.close()
    freed = time.monotonic()
    while not replica.is_ready():
        if time.monotonic() - freed > 10:
            faults.append("nobody is let in though descriptors are free")
            break
    well = time.monotonic() - freed
    await asyncio.gather(*(client.ask() for client in kept))
    for client in (*kept, manager):
        client.close()
    return record.fates(), well, fate


def main():
    program, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    faults, waits, fates, promotions = [], [], Counter(), Counter()
    with tempfile.TemporaryDirectory() as work:
        settings = ("http.drain_delay_ms=0", f"store.folder={work}/data", "store.sampling_rate=1.0", "service.poll_ms=200")
        replica = Replica(program, *settings, models=folder(program, work))
        replica.start()
        try:
            limit(replica.process)
            for _ in range(rounds):
                told, well, promotion = asyncio.run(round_of(replica, faults))
                fates += told
                promotions[promotion] += 1
                waits.append(well)
            after = Record()
            asyncio.run(load(replica.port, after, 1.0))
            fates += after.fates()
            code, stopped = replica.stop()
        finally:
            replica.kill()
        told = replica.told()
    if set(fates) != {200}:
        faults.append(f"answers {dict(fates)}")
    if code != 0 or stopped.get("dropped") != 0:
        faults.append(f"exit code {code}, {stopped}")
    lines = told.count("no connection can be accepted")
    if not 1 <= lines <= 2 * rounds:
        faults.append(f"the log says {lines} times that no connection can be accepted")
    for word in ("panicked", "ended though"):
        if word in told:
            faults.append(f"the log says '{word}'")
    print(f"measured: {rounds} times without descriptors: {fates[200]} answered on connections that were there; new ones "
          f"{max(waits) * 1e3:.0f} ms at most after descriptors were free; promotions meanwhile {dict(promotions)}")
    verdict("descriptors", faults)


if __name__ == "__main__":
    main()
