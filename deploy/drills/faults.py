#!/usr/bin/env python3
"""Faults within the program: each costs what the documents promise, and no more.

    cargo build --release --features failpoints
    deploy/drills/faults.py target/release/sconce

The program looks into a file for what is to go wrong, and this drill writes it.
"""

import asyncio
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

from common import IMAGE, Client, Record, Replica, load, verdict

# After so long without an engine the server ends.
MAX_LOST = 3.0


def blank():
    """A picture of one level, which the plan calls poisoned."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(28) for _ in range(28))
    head = struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Faulty(Replica):
    """A replica with a plan of what goes wrong."""

    def __init__(self, program, work, *settings):
        super().__init__(program, "http.drain_delay_ms=100", "engine.instances=2", f"batcher.max_lost_ms={MAX_LOST * 1e3:.0f}",
                         "store.sampling_rate=0.0", f"store.folder={work}/data", "jobs.enabled=false", *settings)
        self.plan_file = Path(work) / "plan"
        self.environment = {"SCONCE_FAILPOINTS": str(self.plan_file)}

    def plan(self, *lines):
        """From now on this goes wrong, and nothing else."""
        beside = self.plan_file.with_suffix(".new")
        beside.write_text("".join(f"{line}\n" for line in lines))
        beside.rename(self.plan_file)

    def post(self, path, body, content_type):
        """The status of one request with a body."""
        client = Client(self.port, Record(), keep=False, path=path)
        head = (f"POST {path} HTTP/1.1\r\nHost: drill\r\nContent-Type: {content_type}\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n")
        client.request = head.encode() + body
        return asyncio.run(client.ask())

    def predict(self, image=None):
        return self.post("/v1/predict", image or IMAGE.read_bytes(), "image/png")

    def health(self):
        """Live, ready, and a model's ready."""
        return tuple(self.get(path)[0] for path in ("/health/live", "/health/ready", "/v1/models/mnist/ready"))


def expect(faults, what, found, expected):
    if found != expected:
        faults.append(f"{what}: {found}, and {expected} was expected")


def until(holds, seconds):
    """Whether something holds within so long, and after which time."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if holds():
            return time.monotonic() - begun
        time.sleep(0.01)
    return None


async def beside(replica, clients, image, seconds):
    """What honest clients are answered while one sends `image` again and again; and what that one is."""
    honest, other, stop = Record(), Record(), asyncio.Event()

    async def one():
        client = Client(replica.port, other)
        client.request = client.request[: client.request.index(b"Content-Length")] + f"Content-Length: {len(image)}\r\n\r\n".encode() + image
        while not stop.is_set():
            await client.ask()
        client.close()

    guilty = asyncio.create_task(one())
    await load(replica.port, honest, seconds, clients=clients)
    stop.set()
    await guilty
    return Counter(honest.fates()), Counter(other.fates())


def poisoned(replica, faults):
    """A batch with an image that the engine fails at, or panics at: only that image has an error."""
    for action in ("error", "panic"):
        replica.plan(f"engine-blank {action}")
        honest, guilty = asyncio.run(beside(replica, 8, blank(), 2.0))
        expect(faults, f"poisoned by {action}: others", set(honest), {200})
        expect(faults, f"poisoned by {action}: the guilty", set(guilty), {500})
        expect(faults, f"poisoned by {action}: health", replica.health(), (200, 200, 200))
        print(f"measured: poisoned by {action}: {honest[200]} others answered, {guilty[500]} times 500 to the guilty")
    replica.plan()
    expect(faults, "after the poison", replica.predict(blank()), 200)
    if replica.metric("sconce_engine_panics_total") == 0:
        faults.append("no panic of the engine was counted")


def decoders(replica, faults):
    """A decoder that panics costs its image an error."""
    replica.plan("decode panic")
    expect(faults, "a decoder's panic", replica.predict(), 422)
    expect(faults, "a decoder's panic: health", replica.health(), (200, 200, 200))
    replica.plan()
    expect(faults, "after a decoder's panic", replica.predict(), 200)
    expect(faults, "decoders' panics", replica.metric("sconce_decode_panics_total"), 1)


def stores(replica, faults):
    """A store that fails is 503 to those who need it, and nothing to the others."""
    def sample():
        parts = (("model", b"mnist"), ("source", b"drill"), ("label", b"7"), ("image", IMAGE.read_bytes()))
        text = b"".join(b"--XX\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n" % (name.encode(), value)
                        for name, value in parts)
        return replica.post("/v1/samples", text + b"--XX--\r\n", "multipart/form-data; boundary=XX")
    replica.plan("store error")
    expect(faults, "a sample to a store that fails", sample(), 503)
    expect(faults, "a prediction beside it", replica.predict(), 200)
    expect(faults, "a store that fails: health", replica.health(), (200, 200, 200))
    replica.plan()
    if sample() not in (200, 201, 202):
        faults.append("a sample is not taken though the store is well")


def lost(replica, faults):
    """A device that is lost: 503 at once, not ready, and ready again once it is back."""
    record, stop = Record(), asyncio.Event()

    async def course():
        asks = asyncio.create_task(load(replica.port, record, 30, stop=stop))
        await asyncio.sleep(0.5)
        replica.plan("engine error")
        await asyncio.sleep(1.0)
        health = await asyncio.to_thread(replica.health)
        expect(faults, "a lost device: health", health, (200, 503, 503))
        expect(faults, "a lost device: sconce_ready", await asyncio.to_thread(replica.metric, "sconce_ready"), 0)
        expect(faults, "a lost device: sconce_engine_lost", await asyncio.to_thread(replica.metric, "sconce_engine_lost"), 1)
        replica.plan()
        back = await asyncio.to_thread(until, replica.is_ready, MAX_LOST)
        await asyncio.sleep(0.5)
        stop.set()
        await asks
        return back

    back = asyncio.run(course())
    fates = record.fates()
    slowest = max((end - begun for begun, end, fate in record.requests if fate == 503), default=0.0)
    expect(faults, "a lost device: answers", set(fates), {200, 503})
    if back is None:
        faults.append("it is not ready again though its device is back")
    expect(faults, "after a lost device", (replica.predict(), replica.health()), (200, (200, 200, 200)))
    print(f"measured: a lost device: {fates[200]} answered, {fates[503]} times 503 (the slowest after {slowest * 1e3:.0f} ms), "
          f"ready again {(back or 0) * 1e3:.0f} ms after it was back")


def ends(replica, faults, what, line, code=70):
    """Ends by itself, with a code and a reason, after the requests that it has are answered."""
    record, stop = Record(), asyncio.Event()

    async def course():
        asks = asyncio.create_task(load(replica.port, record, 60, stop=stop))
        await asyncio.sleep(0.3)
        replica.plan(line)
        begun = time.monotonic()
        while replica.process.poll() is None and time.monotonic() - begun < 30:
            await asyncio.sleep(0.02)
        stop.set()
        await asks
        return time.monotonic() - begun

    seconds = asyncio.run(course())
    found = replica.process.poll()
    if found is None:
        faults.append(f"{what}: it does not end")
        replica.signal(signal.SIGKILL)
    expect(faults, f"{what}: exit code", replica.wait()[0], code)
    fates = record.fates()
    # Those without a connection came after its end.
    fates.pop("no connection", None)
    wrong = set(fates) - {200, 503}
    if wrong:
        faults.append(f"{what}: answers {dict(fates)}")
    if "ended though the server runs" not in replica.told():
        faults.append(f"{what}: the log does not say why")
    print(f"measured: {what}: ended after {seconds:.1f} s, answers {dict(fates)}")
    replica.plan()


def main():
    faults = []
    with tempfile.TemporaryDirectory() as work:
        replica = Faulty(sys.argv[1], work)
        replica.plan()
        try:
            replica.start()
            for course in (poisoned, decoders, stores, lost):
                course(replica, faults)
            code, stopped = replica.stop()
            expect(faults, "the end", (code, stopped.get("dropped")), (0, 0))
            for what, line in (("a device that stays lost", "engine error"), ("an engine's worker that panics", "worker panic"),
                               ("a decode thread that panics", "decode-thread panic")):
                replica.start()
                ends(replica, faults, what, line)
        finally:
            replica.kill()
    verdict("faults", faults)


if __name__ == "__main__":
    main()
