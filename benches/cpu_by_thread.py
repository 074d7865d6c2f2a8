#!/usr/bin/env python3
"""CPU time per request by group of threads: what the server costs beyond decoding and inference.

    cpu_by_thread.py PID --url http://127.0.0.1:8080/v1/predict --body examples/digit.png
    cpu_by_thread.py PID --requests 100000 -- ab -k -c 64 -n 100000 -p FILE -T image/png URL

Reads /proc/PID/task/*/schedstat (nanoseconds on a CPU) before and after a load, groups threads by name (http-0 and http-1
are http), and divides by the number of answers. The load is a closed loop of keep-alive connections in a process of its
own, or any command, whose number of requests is then given. Linux, Python's standard library.

The server's own CPU time is what is measured, so the client may be slow; but batches form by load, so say how many
connections there were, and see that the client was not what limited the rate (its CPU time is printed too).
"""

import argparse
import re
import resource
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit


def cpu_by_group(pid):
    """Nanoseconds on a CPU by thread group, of the threads that live now."""
    groups = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            nanoseconds = int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
        groups[group(name)] = groups.get(group(name), 0) + nanoseconds
    return groups


def group(name):
    """`infer-mnist-0` and `infer-fashion` (names are cut at 15 characters) are both infer."""
    known = re.match(r"(http|decode|infer)\b", name)
    return known.group(1) if known else name


def own_cpu():
    """CPU seconds of this process and of the commands that it ran."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Connection:
    """One keep-alive connection that has always one request under way."""

    def __init__(self, address, request):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.received = bytearray()
        self.send()

    def send(self):
        self.socket.sendall(self.request)

    def receive(self):
        """The status of the answer that is now complete, or None."""
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError("the server closed a connection")
        self.received += part
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self.received[:end]).lower()
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        if length is None:
            raise ConnectionError("an answer without content-length")
        total = end + 4 + int(length.group(1))
        if len(self.received) < total:
            return None
        del self.received[:total]
        return int(head.split(b" ", 2)[1])


def closed_loop(url, body, content_type, connections, seconds):
    """(answers, answers that were not 200) of that many connections, each asking again as soon as it is answered."""
    parts = urlsplit(url)
    address = (parts.hostname, parts.port or 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        connection = Connection(address, request)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    answers, wrong, end = 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for key, _ in selector.select(timeout=1):
            status = key.data.receive()
            if status is not None:
                answers += 1
                wrong += status != 200
                key.data.send()
    return answers, wrong


def run_command(command, requests):
    subprocess.run(command, check=True, stdout=sys.stderr)
    return requests, 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pid", type=int)
    parser.add_argument("--url", help="where the built-in load posts")
    parser.add_argument("--body", type=Path, help="what it posts")
    parser.add_argument("--content-type", default="image/png")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=float, default=1, help="seconds of load before the measurement")
    parser.add_argument("--requests", type=int, help="how many requests the command makes")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, command = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]

    if command:
        if not options.requests:
            parser.error("a command needs --requests")
        load = lambda: run_command(command, options.requests)
    elif options.url and options.body:
        arguments = options.url, options.body.read_bytes(), options.content_type, options.connections
        closed_loop(*arguments, options.warm_up)
        load = lambda: closed_loop(*arguments, options.seconds)
    else:
        parser.error("give --url and --body, or a command")

    before, own, begun = cpu_by_group(options.pid), own_cpu(), time.monotonic()
    answers, wrong = load()
    seconds = time.monotonic() - begun
    after, own = cpu_by_group(options.pid), own_cpu() - own

    if answers == 0:
        sys.exit("no answer")
    used = {name: after[name] - before.get(name, 0) for name in after}
    print(f"{answers} answers in {seconds:.2f} s ({answers / seconds:.0f}/s), {wrong} not 200, client's CPU {own:.2f} s")
    print(f"{'threads':<12} {'µs/request':>10} {'CPU s':>8}")
    for name, nanoseconds in sorted(used.items(), key=lambda item: -item[1]):
        print(f"{name:<12} {nanoseconds / 1000 / answers:>10.2f} {nanoseconds / 1e9:>8.3f}")
    total = sum(used.values())
    rest = total - used.get("decode", 0) - used.get("infer", 0)
    print(f"{'all':<12} {total / 1000 / answers:>10.2f} {total / 1e9:>8.3f}")
    print(f"beyond decoding and inference: {rest / 1000 / answers:.2f} µs per request")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
