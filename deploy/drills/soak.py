#!/usr/bin/env python3
"""Minutes of mixed load, with versions that change and clients that leave: nothing fails, and memory does not grow.

    deploy/drills/soak.py target/release/sconce [MINUTES] [--plot FILE.svg]

Eight clients keep their connections, two open one for each request, two hang up (in the middle of a request, or before
its answer), one sends what is no image, one scrapes the metrics, and every five seconds another version is promoted.
The plot needs matplotlib.
"""

import argparse
import asyncio
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from common import IMAGE, NEVER_RAN, ROOT, Client, Record, Replica, load, verdict

# Bytes of memory for 100,000 requests more.
BAR = 1_000_000


def folder(program, work):
    """The shipped models, the first with three versions."""
    models = Path(work) / "models"
    shutil.copytree(ROOT / "models", models)
    for version in ("2", "3"):
        shutil.copytree(models / "mnist" / "1", models / "mnist" / version)
    subprocess.run([program, "models", "alias", "mnist", "champion", "1", "--models", str(models)], check=True,
                   stdout=subprocess.DEVNULL)
    return models


async def leavers(port, end):
    """Hang up after the head, in the body, and with the answer under way, in turn; how many times."""
    image, count = IMAGE.read_bytes(), 0
    head = f"POST /v1/predict HTTP/1.1\r\nHost: drill\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n".encode()
    while time.monotonic() < end:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((head + image)[: (len(head), len(head) + 40, None)[count % 3]])
        await writer.drain()
        # Not an orderly end: what is on its way is answered by a reset.
        writer.transport.abort()
        count += 1
        await asyncio.sleep(0.002)
    return count


async def strangers(port, end):
    """Send what is no image, and expect to hear so."""
    statuses = set()
    body = b"not an image"
    request = f"POST /v1/predict HTTP/1.1\r\nHost: drill\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    client = Client(port, Record())
    client.request = request.encode() + body
    while time.monotonic() < end:
        statuses.add(await client.ask())
        client.record.requests.clear()
        await asyncio.sleep(0.01)
    client.close()
    return statuses


async def changes(replica, end):
    """Promotes the three versions in turn; what was answered."""
    statuses, number = [], 1
    while time.monotonic() < end - 5:
        await asyncio.sleep(5)
        number = number % 3 + 1
        ask = {"version": number, "by": "soak", "reason": "drill", "force": True}
        status, _ = await asyncio.to_thread(replica.ask, "POST", "/v1/models/mnist/promote", ask)
        statuses.append(status)
    return statuses


async def watch(replica, end):
    """Seconds, requests so far, and resident bytes, once a second."""
    points, begun = [], time.monotonic()
    while time.monotonic() < end:
        requests = await asyncio.to_thread(replica.metric, "sconce_http_requests_total")
        points.append((time.monotonic() - begun, requests, replica.memory()))
        await asyncio.sleep(1)
    return points


def slope(points):
    """Bytes for each request more, by least squares."""
    xs, ys = [requests for _, requests, _ in points], [memory for _, _, memory in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys)) / sum((a - x) ** 2 for a in xs)


def plot(points, warm, path):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(8, 3.5))
    axes.plot([requests / 1e6 for _, requests, _ in points], [memory / 1e6 for _, _, memory in points], linewidth=1)
    axes.axvline(points[warm][1] / 1e6, linestyle=":", color="gray")
    axes.set_xlabel("requests, millions")
    axes.set_ylabel("resident memory, MB")
    axes.set_ylim(bottom=0)
    axes.set_title("Mixed load, reloads and aborts; the slope is taken right of the dotted line")
    figure.tight_layout()
    figure.savefig(path)


async def soak(replica, seconds):
    end = time.monotonic() + seconds
    records = [Record(), Record()]

    async def kept(record, clients, keep):
        """Counts and forgets, so that this program does not grow either."""
        fates = {}
        while time.monotonic() < end:
            await load(replica.port, record, min(5, end - time.monotonic()), clients=clients, keep=keep)
            for fate, count in record.fates().items():
                fates[fate] = fates.get(fate, 0) + count
            record.requests.clear()
        return fates

    return await asyncio.gather(kept(records[0], 8, True), kept(records[1], 2, False), leavers(replica.port, end),
                                leavers(replica.port, end), strangers(replica.port, end), changes(replica, end),
                                watch(replica, end))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("minutes", nargs="?", type=float, default=15.0)
    parser.add_argument("--plot")
    arguments = parser.parse_args()
    faults = []
    with tempfile.TemporaryDirectory() as work:
        replica = Replica(arguments.program, models=folder(arguments.program, work))
        replica.start()
        try:
            told = asyncio.run(soak(replica, arguments.minutes * 60))
            code, stopped = replica.stop()
        finally:
            replica.kill()
    kept, fresh, *left, wrong, promoted, points = told
    # Caches and pools fill at first.
    warm = len(points) // 5
    growth = slope(points[warm:]) * 100_000
    answered = kept.pop(200, 0) + fresh.pop(200, 0)
    for name, fates in (("kept connections", kept), ("fresh connections", fresh)):
        if fates:
            faults.append(f"{name}: {fates}")
    if wrong - {415}:
        faults.append(f"what is no image was answered {wrong}")
    if set(promoted) - {200}:
        faults.append(f"promotions were answered {set(promoted)}")
    if growth > BAR:
        faults.append(f"memory grows by {growth / 1e6:.2f} MB for 100,000 requests")
    if code != 0 or stopped.get("dropped") != 0:
        faults.append(f"exit code {code}, dropped {stopped.get('dropped')}")
    print(f"measured: {arguments.minutes:g} minutes: {answered} answered, {sum(left)} hung up, {len(promoted)} promotions; memory "
          f"{points[warm][2] / 1e6:.1f} to {points[-1][2] / 1e6:.1f} MB, {growth / 1e6:+.3f} MB for 100,000 requests")
    if arguments.plot:
        plot(points, warm, arguments.plot)
    verdict("soak", faults)


if __name__ == "__main__":
    main()
