#!/usr/bin/env python3
"""The time of day is set an hour on and back: deadlines, quotas, leases and what is kept do not notice.

    deploy/drills/clock.py target/release/sconce

The server runs with a library (clock.c, compiled here) that tells it another time of day.
"""

import asyncio
import email.utils
import fcntl
import http.client
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import IMAGE, ROOT, Client, Record, Replica, load, verdict

HOUR, DAY = 3600, 86_400
# Jobs whose holder died are looked for every five seconds.
LOOKS = 11.0


class Timed(Replica):
    """A replica whose time of day is off."""

    def __init__(self, program, work, library, *settings):
        super().__init__(program, "http.drain_delay_ms=0", f"store.folder={work}/data", "store.sampling_rate=1.0", *settings)
        self.offset = Path(work) / "offset"
        self.offset.write_bytes(struct.pack("q", 0))
        self.environment = {"LD_PRELOAD": library, "CLOCK_OFFSET": str(self.offset)}

    def off(self, seconds):
        """Sets the time of day; the file stays the same one."""
        with open(self.offset, "r+b") as file:
            file.write(struct.pack("q", seconds))


def compiled(work):
    library = f"{work}/clock.so"
    source = ROOT / "deploy" / "drills" / "clock.c"
    subprocess.run(["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def day(replica):
    """The date that the server tells."""
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=5)
    connection.request("GET", "/health/live")
    told = connection.getresponse().getheader("Date")
    connection.close()
    return email.utils.parsedate_to_datetime(told).timestamp()


async def stepped(replica, faults):
    """Load under deadlines, with the time of day set on and back meanwhile; the job that runs is nobody else's."""
    record, stop = Record(), asyncio.Event()
    asks = asyncio.create_task(load(replica.port, record, 120, clients=4, rate=200, stop=stop))
    for off in (HOUR, -HOUR, 0):
        replica.off(off)
        await asyncio.sleep(0.5)
        # Back, the header stays at what it was: hyper writes a new date when the time comes that it last saw.
        if off > 0 and abs(await asyncio.to_thread(day, replica) - time.time() - off) > 5:
            faults.append("the drill sets no clock")
        await asyncio.sleep(LOOKS)
        _, job = await asyncio.to_thread(replica.get, "/v1/retrain/1")
        job = json.loads(job)
        if (job["state"], job["attempt"]) != ("running", 1):
            faults.append(f"after {off} s the job is {job['state']}, attempt {job['attempt']}: {job.get('reason')}")
    stop.set()
    await asks
    return record.fates()


def jobs(replica, work, faults):
    """A job that runs for as long as the drill wants: somebody else works in its folder."""
    folder = Path(work) / "data" / "jobs" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    status, told = replica.ask("POST", "/v1/retrain", {"model": "mnist", "without_replay": True})
    if status != 202:
        faults.append(f"no job is taken: {status} {told}")
    for _ in range(500):
        if json.loads(replica.get("/v1/retrain/1")[1])["state"] == "running":
            return lock
        time.sleep(0.02)
    faults.append("the job does not run")
    return lock


def predicted(replica):
    """The id of a prediction that was kept."""
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=5)
    connection.request("POST", "/v1/predict", IMAGE.read_bytes(), {"Content-Type": "image/png"})
    answer = connection.getresponse()
    answer.read()
    return answer.getheader("X-Request-Id")


def retention(replica, faults, identity):
    """A start more than a year too late, or an hour too early, deletes nothing."""
    for number, off in enumerate((400 * DAY, -HOUR, 0)):
        replica.off(off)
        replica.start()
        time.sleep(0.5)
        body = {"id": identity, "label": 1, "source": f"drill-{number}"}
        status, told = replica.ask("POST", "/v1/feedback", body)
        if status not in (200, 201, 202):
            faults.append(f"after a start at {off} s, feedback on what was kept is answered {status} {told}")
        replica.stop()


def quota(program, work, library, faults):
    """A key's quota is neither full again nor used up for an hour."""
    keys = f"{work}/keys.jsonl"
    command = [program, "keys", "new", "--id", "ann", "--scopes", "predict", "--requests-per-second", "2", "--burst", "5"]
    token = subprocess.run([*command, "--append", keys], check=True, capture_output=True, text=True).stdout.strip()
    replica = Timed(program, work, library, f"auth.keys_file={keys}")

    def asked():
        client = Client(replica.port, Record(), keep=False)
        client.request = client.request.replace(b"Host: drill", b"Host: drill\r\nX-API-Key: " + token.encode())
        return asyncio.run(client.ask())

    try:
        replica.start()
        for off in (HOUR, -HOUR, 0):
            # Used up, whatever was left of it.
            while asked() == 200:
                pass
            replica.off(off)
            found = [asked() for _ in range(4)]
            if found.count(200) > 1:
                faults.append(f"after {off} s the quota is full again: {found}")
            time.sleep(1.2)
            if (found := asked()) != 200:
                faults.append(f"after {off} s the quota does not fill: {found}")
        replica.stop()
    finally:
        replica.kill()


def main():
    program, faults = sys.argv[1], []
    with tempfile.TemporaryDirectory() as work:
        library = compiled(work)
        replica = Timed(program, work, library)
        try:
            replica.start()
            identity = predicted(replica)
            lock = jobs(replica, work, faults)
            fates = asyncio.run(stepped(replica, faults))
            if set(fates) != {200}:
                faults.append(f"answers {dict(fates)}")
            code, _ = replica.stop()
            if code != 0:
                faults.append(f"exit code {code}")
            lock.close()
            replica.settings = (*replica.settings, "jobs.enabled=false")
            retention(replica, faults, identity)
        finally:
            replica.kill()
        with tempfile.TemporaryDirectory() as other:
            quota(program, other, library, faults)
    print(f"measured: the time of day set three times: {fates[200]} answered in time, one job that ran on, nothing deleted")
    verdict("clock", faults)


if __name__ == "__main__":
    main()
