"""What the drills share: replicas of the server, a client that accounts for every request, and free ports. Standard library only."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "examples" / "digit.png"
NEVER_RAN = "no connection"


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Replica:
    """One `sconce serve`, in a process of its own; started again on the same port after each stop."""

    def __init__(self, program, *settings, models=ROOT / "models"):
        self.program, self.settings, self.models = program, settings, models
        self.port = free_port()
        self.process = None
        self.log = tempfile.TemporaryFile()
        # Called in the new process before the program is.
        self.prepare = None
        # Variables beside those of this process.
        self.environment = {}

    def command(self):
        flags = [flag for setting in self.settings for flag in ("--set", setting)]
        address = f"127.0.0.1:{self.port}"
        return [self.program, "serve", "--listen", address, "--admin", "", "--models", str(self.models), "--set", "log.format=json",
                "--set", "store.folder=", *flags]

    def start(self):
        """Runs it; returns once it is ready, with the seconds from exec to the first `/health/ready` that says so."""
        begun = time.monotonic()
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=self.log, preexec_fn=self.prepare,
                                        env={**os.environ, **self.environment})
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() - begun > 60:
                raise SystemExit(f"the server does not become ready:\n{self.told()}")
            time.sleep(0.002)
        return time.monotonic() - begun

    def get(self, path, timeout=1.0):
        """Status and body; status 0 where nobody answers."""
        return self.ask("GET", path, timeout=timeout)

    def ask(self, method, path, body=None, timeout=10.0):
        """As `get`, with a body of JSON."""
        text = json.dumps(body).encode() if body is not None else None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def is_ready(self):
        return self.get("/health/ready")[0] == 200

    def metric(self, name):
        """The sum over a series' labels."""
        body = self.get("/metrics")[1].decode()
        lines = [line for line in body.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def memory(self):
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=60):
        """The exit code and the last event of the log with the message `stopped`, if there is one."""
        code = self.process.wait(timeout)
        events = (json.loads(line) for line in self.told().splitlines() if line.startswith("{"))
        stopped = [event for event in events if event.get("message") == "stopped"]
        return code, (stopped[-1] if stopped else {})

    def stop(self):
        self.signal(signal.SIGTERM)
        return self.wait()

    def told(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Record:
    """Every request, with its fate: when it was begun and ended (monotonic seconds), and a status or what went wrong."""

    def __init__(self):
        self.requests = []

    def add(self, begun, fate):
        self.requests.append((begun, time.monotonic(), fate))

    def fates(self):
        return Counter(fate for _, _, fate in self.requests)

    def failures(self):
        """Those that were not answered 200."""
        return [request for request in self.requests if request[2] != 200]


class Client:
    """Asks by HTTP/1.1 on one connection that is kept, or on a new one each time."""

    def __init__(self, port, record, keep=True, path="/v1/predict", timeout=30.0):
        self.port, self.record, self.keep, self.timeout = port, record, keep, timeout
        image = IMAGE.read_bytes()
        close = "" if keep else "Connection: close\r\n"
        head = f"POST {path} HTTP/1.1\r\nHost: drill\r\nContent-Type: image/png\r\n{close}Content-Length: {len(image)}\r\n\r\n"
        self.request = head.encode() + image
        self.stream = None

    async def ask(self):
        """One request. Where the server takes no connection, it was never accepted: `no connection` is its fate."""
        begun = time.monotonic()
        try:
            if self.stream is None:
                self.stream = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), self.timeout)
        except (OSError, TimeoutError):
            self.record.add(begun, NEVER_RAN)
            return NEVER_RAN
        try:
            fate, closes = await asyncio.wait_for(self.exchange(), self.timeout)
        except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
            fate, closes = type(error).__name__, True
        self.record.add(begun, fate)
        if closes or not self.keep:
            self.close()
        return fate

    async def exchange(self):
        reader, writer = self.stream
        writer.write(self.request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(line.split(":")[1] for line in head.split("\r\n") if line.startswith("content-length:"))
        await reader.readexactly(int(length))
        return int(head.split()[1]), "connection: close" in head

    def close(self):
        if self.stream:
            self.stream[1].close()
            self.stream = None


async def load(port, record, seconds, clients=8, rate=None, stop=None, keep=True):
    """`clients` that ask for `seconds` or until the event `stop`; each as fast as it is answered, or all together `rate`
    times in a second. A client that finds nobody waits a moment before it tries again."""
    end = time.monotonic() + seconds

    async def one(number):
        client = Client(port, record, keep)
        due = time.monotonic() + (number / rate if rate else 0)
        while time.monotonic() < end and not (stop and stop.is_set()):
            if rate:
                await asyncio.sleep(due - time.monotonic())
                due += clients / rate
            if await client.ask() == NEVER_RAN:
                await asyncio.sleep(0.005)
        client.close()

    await asyncio.gather(*(one(number) for number in range(clients)))


def longest_gap(record):
    """The longest time, in seconds, in which no answer 200 came."""
    ends = sorted(end for _, end, fate in record.requests if fate == 200)
    return max((later - earlier for earlier, later in zip(ends, ends[1:])), default=0.0)


def verdict(name, faults):
    """Ends the program with what is wrong, if anything is."""
    if faults:
        raise SystemExit(f"{name}: " + "; ".join(faults))
    print(f"{name}: holds")
