#!/usr/bin/env python3
"""What does a retrain in the background cost the answers? The same load with and without one, in turns.

usage: retrain_latency.py MNIST_DIR [ROUNDS] [RATE] [SECONDS]    (unpacked idx files; needs numpy, and before: cargo build --release)

An open loop of RATE requests per second over 8 connections, one PNG of a digit each: A without a job, B while a job trains on
MNIST. Prints each round's latencies (p50, p99, p99.9) in milliseconds from when a request was due, and failures; then medians.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import shutil
import urllib.request

from forgetting import HERE, MODEL, SCONCE, Server


def load(server, rate, seconds, work):
    report = os.path.join(work, "load.json")
    image = os.path.join(HERE, "..", "examples", "digit.png")
    command = [SCONCE, "bench", "load", f"{server.url}/v1/predict", "--image", image, "--rate", str(rate), "--connections", "8",
               "--rounds", "1", "--warm-up", "1", "--duration", str(seconds), "--json", report]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(report) as file:
        return json.load(file)


def training(server):
    """A job that has done its first epoch."""
    request = {"model": MODEL, "dataset": MODEL, "feedback": False, "epochs": 1000, "promote": False}
    job = server.post("/v1/retrain", "application/json", json.dumps(request).encode())["id"]
    while server.get(f"/v1/retrain/{job}")["progress"].get("phase") != "train":
        time.sleep(0.2)
    return job


def cancelled(server, job):
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/retrain/{job}", method="DELETE")).close()
    while server.get(f"/v1/retrain/{job}")["state"] in ("queued", "running"):
        time.sleep(0.2)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    mnist, rounds, rate, seconds = [*sys.argv[1:], *["5", "500", "8"][len(sys.argv) - 2:]][:4]
    work = tempfile.mkdtemp(prefix="retrain-latency-")
    server = Server(work, mnist, [])
    found = {"idle": [], "training": []}
    try:
        for _ in range(int(rounds)):
            found["idle"].append(load(server, int(rate), int(seconds), work))
            job = training(server)
            found["training"].append(load(server, int(rate), int(seconds), work))
            cancelled(server, job)
    finally:
        server.stop()
        shutil.rmtree(work)
    tell(found)


def tell(found):
    """Each round, then what its median is."""
    names = ["corrected latency p50", "corrected latency p99", "corrected latency p99.9"]
    medians = {}
    for side, reports in found.items():
        rounds = []
        for report in reports:
            figures = {figure["name"]: figure["servers"][0]["median"] for figure in report["figures"]}
            failed = figures["requests sent"] - figures["answered 200"]
            rounds.append([figures[name] for name in names])
            print(f"{side:8}  " + "  ".join(f"{figure:7.2f}" for figure in rounds[-1]) + f"  failed {failed:.0f}")
        medians[side] = [statistics.median(column) for column in zip(*rounds)]
    for name, idle, training_ in zip(names, medians["idle"], medians["training"]):
        print(f"{name}: {idle:.2f} ms, while training {training_:.2f} ms, {training_ / idle:.2f} times")


if __name__ == "__main__":
    main()
