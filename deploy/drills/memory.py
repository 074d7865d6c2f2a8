#!/usr/bin/env python3
"""256 MB of memory: the server starts, serves, and refuses what it has no room for; it is not killed.

    deploy/drills/memory.py target/release/sconce [MEGABYTES]

The system gives it no more (RLIMIT_DATA, which needs no rights): an allocation beyond ends the process, as the kernel's killer
would in a container. Large pictures come many at once, bodies come that are large and slow, or large and no picture, and
connections that say nothing.
"""

import asyncio
import resource
import struct
import sys
import time
import zlib
from collections import Counter

from common import Client, Record, Replica, load, verdict

# What may be said to a request for which there is no room, or which is wrong. 408: a body so slow that it was given up for others.
HONEST = {200, 408, 413, 415, 422, 429, 503}


def png(width, height, rest=0):
    """A blank picture of eight bits for each of three channels, and as many bytes that are not of it."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    row = b"\0" * (3 * width + 1)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    text = chunk(b"tEXt", b"a\0" + b"x" * rest) if rest else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + text + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def request(body):
    return f"POST /v1/predict HTTP/1.1\r\nHost: drill\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def at_once(port, body, clients, times):
    """What so many clients are answered who ask with this body at the same time, again and again."""
    record = Record()

    async def one():
        client = Client(port, record)
        client.request = request(body)
        for _ in range(times):
            await client.ask()
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return record.fates()


async def slow(port, body, clients, seconds):
    """Connections that send all but the end of a body, and wait; then go. How many were told something meanwhile."""
    async def one():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request(body)[:-1])
            # Whoever is refused hears it while he still sends.
            answer = await asyncio.wait_for(reader.read(64), seconds)
            return int(answer.split()[1]) if answer else 0
        except TimeoutError:
            return None
        except OSError:
            return 0
        finally:
            writer.transport.abort()

    return Counter(await asyncio.gather(*(one() for _ in range(clients))))


async def quiet(port, clients, seconds):
    """Connections that say nothing."""
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(clients)]
    await asyncio.sleep(seconds)
    for _, writer in streams:
        writer.close()


async def drill(replica, faults):
    """Everything in turn, while one honest client asks."""
    port, peaks = replica.port, {}
    large, padded = png(2000, 1990), png(1, 1, rest=4_000_000)

    async def under(name, course):
        honest, stop = Record(), asyncio.Event()
        asks = asyncio.create_task(load(port, honest, 60, clients=1, rate=50, stop=stop))
        told = await course
        stop.set()
        await asks
        try:
            peaks[name] = replica.memory()
        except (OSError, StopIteration):
            raise SystemExit(f"memory: it died under {name}: {replica.told()[-600:]}") from None
        print(f"measured: {name}: answered {dict(told or {})}; {peaks[name] / 1e6:.0f} MB; "
              f"meanwhile one of others {dict(honest.fates())}")
        wrong = {fate for fate in honest.fates() if fate not in HONEST} | {fate for fate in told or {} if fate not in HONEST | {None}}
        if wrong:
            faults.append(f"{name}: {wrong}")
        if honest.fates()[200] == 0:
            faults.append(f"{name}: nobody else is served")

    await under("32 pictures of 4 megapixels at once", at_once(port, large, 32, 4))
    await under("64 bodies of 4 MB of a small picture at once", at_once(port, padded, 64, 4))
    await under("300 bodies of 1 MB that do not end", slow(port, png(1, 1, rest=1_000_000), 300, 5))
    await under("2000 connections that say nothing", quiet(port, 2000, 2))
    return peaks


def main():
    program, megabytes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 256
    most = megabytes << 20
    faults = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    replica = Replica(program, "http.drain_delay_ms=0", "engine.cache=")
    replica.prepare = lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        replica.start()
        idle = replica.memory()
        begun = time.monotonic()
        asyncio.run(drill(replica, faults))
        after = Record()
        asyncio.run(load(replica.port, after, 1.0))
        if set(after.fates()) != {200}:
            faults.append(f"afterwards: {dict(after.fates())}")
        code, _ = replica.stop()
        if code != 0:
            faults.append(f"exit code {code}")
    finally:
        replica.kill()
    print(f"measured: {megabytes} MB of memory, {idle / 1e6:.0f} MB resident when ready; {time.monotonic() - begun:.0f} s")
    verdict("memory", faults)


if __name__ == "__main__":
    main()
