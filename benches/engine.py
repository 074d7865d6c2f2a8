#!/usr/bin/env python3
"""Compares Sconce's engine with ONNX Runtime, OpenVINO, torch and stock candle: one thread, f32, the same weights.

    python3 benches/engine_models.py WORK                       # once
    python3 benches/engine.py WORK --sconce target/release/sconce > table.md

In each round every point (network, batch) is timed by one after the other, so that all see the same machine, and every
other round in the opposite order. A figure is the median over rounds of a round's median call; a ratio is the median
over rounds of the ratio within a round; minima stand in brackets, for machines that are not quiet. Everybody is pinned to the same core. What a call of a trivial network costs is
measured in every round and taken off ONNX Runtime's and OpenVINO's times. At the end: two instances on two cores.

usage: engine.py WORK [--sconce PROGRAM] [--rounds 9] [--candle-rounds 3] [--seconds 0.3] [--networks A,B] [--torch]
(needs numpy, onnxruntime, openvino; torch with --torch, and what is imported by the networks)
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import time
from statistics import median

THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "MKL_NUM_THREADS")}
OTHERS = ["onnxruntime", "openvino"]
TRIVIAL = ("trivial", 1)
# Largest difference from torch's answer, as a share of the largest logit or probability.
TOLERANCE = 1e-3


# A process for each of the others, which answers `NAME BATCH SECONDS` lines with times.


def onnxruntime_call(work, name, batch, x):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = os.path.join(work, f"{name}-{batch}.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


def openvino_call(work, name, batch, x):
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(os.path.join(work, f"{name}-{batch}.onnx"), "CPU", settings)
    request, tensor = compiled.create_infer_request(), openvino.Tensor(x)

    def call():
        request.infer([tensor], share_inputs=True, share_outputs=True)
        return request.get_output_tensor(0).data

    return call


def torch_call(work, name, _batch, x):
    import torch
    from torch import nn

    import engine_models

    # The seed CNN was written by engine_models as a program.
    sys.modules["__main__"].SeedCnn = engine_models.SeedCnn
    torch.set_num_threads(1)
    network = nn.ReLU() if name == "trivial" else torch.load(os.path.join(work, f"{name}.pt"), weights_only=False)
    x = torch.from_numpy(x)

    def call():
        with torch.inference_mode():
            return network(x).numpy()

    return call


CALLS = {"onnxruntime": onnxruntime_call, "openvino": openvino_call, "torch": torch_call}


def answer(library, work):
    """Serves one library on standard input and output."""
    import numpy

    calls = {}
    for line in sys.stdin:
        name, batch, seconds = line.split()
        if (name, batch) not in calls:
            pair = numpy.load(os.path.join(work, f"{name}-{batch}.npz"))
            call = CALLS[library](work, name, int(batch), pair["x"])
            check(f"{library}, {name}, batch {batch}", call(), pair["y"])
            calls[name, batch] = call
        print(json.dumps(timed(calls[name, batch], float(seconds))), flush=True)


def timed(call, seconds):
    """µs of the median and of the quickest call of at least one."""
    call()
    times, began = [], time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return [median(times) * 1e6, min(times) * 1e6]


def check(what, found, expected):
    off = abs(found - expected).max() / abs(expected).max()
    if not off <= TOLERANCE:
        sys.exit(f"{what}: differs from torch by {off:.1e} of the largest")


class Other:
    """Another library's process."""

    def __init__(self, library, work):
        self.process = subprocess.Popen(
            [sys.executable, __file__, work, "--serve", library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | THREADS,
        )

    def time(self, name, batch, seconds):
        self.process.stdin.write(f"{name} {batch} {seconds}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("one of the others has ended")
        return json.loads(line)


class Sconce:
    """The program under test."""

    def __init__(self, program, work):
        self.command = [program, "--models", os.path.join(work, "models"), "--set", "engine.device=cpu"]
        self.work = work

    def report(self, name, batches, *flags):
        batches = ",".join(map(str, batches))
        command = [*self.command, "bench", "engine", "--model", name, "--batches", batches, "--json", "-", *map(str, flags)]
        run = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | THREADS)
        return json.loads(run.stdout)

    def time(self, name, batch, seconds, *flags):
        """By executor: µs of the median and of the quickest call."""
        report = self.report(name, [batch], "--threads", 1, "--rounds", 1, "--seconds", seconds, *flags)
        return {
            point["executor"]: [point["us_per_image"][0] * batch, point["min_us_per_image"] * batch]
            for point in report["points"]
        }

    def check(self, name):
        """Holds the probabilities of images against torch's."""
        import numpy

        expected = numpy.load(os.path.join(self.work, f"{name}.npz"))["probabilities"]
        files = [os.path.join(self.work, f"{name}-{index}.png") for index in range(len(expected))]
        command = [*self.command, "predict", "--model", name, "--json", "--top-k", str(expected.shape[1]), *files]
        entries = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        found = numpy.zeros_like(expected)
        for row, entry in zip(found, entries):
            for scored in entry["top_k"]:
                row[scored["index"]] = scored["probability"]
        check(f"sconce, {name}", found, expected)


class Times:
    """All times: by who and point, a [median, minimum] of each round."""

    def __init__(self):
        self.rounds = {}

    def add(self, who, point, times):
        self.rounds.setdefault((who, point), []).append(times)

    def medians(self, who, point):
        return [times[0] for times in self.rounds.get((who, point), [])]

    def of(self, who, point):
        """µs of a batch, median and minimum, a trivial call's taken off where it is known."""
        rounds = self.rounds[who, point]
        overhead = self.overhead(who)
        return max(median(t[0] for t in rounds) - overhead[0], 0), max(min(t[1] for t in rounds) - overhead[1], 0)

    def overhead(self, who):
        rounds = self.rounds.get((who, TRIVIAL))
        return (median(t[0] for t in rounds), min(t[1] for t in rounds)) if rounds else (0, 0)

    def ratio(self, slow, quick, point):
        """How many times as long `slow` takes as `quick`, by medians and by minima; the overhead of `slow` taken off."""
        pairs = zip(self.medians(slow, point), self.medians(quick, point))
        by_round = median((a - self.overhead(slow)[0]) / b for a, b in pairs)
        return "{:.2f} ({:.2f})".format(by_round, self.of(slow, point)[1] / self.of(quick, point)[1])


def measure(arguments, sconce, networks):
    libraries = OTHERS + (["torch"] if arguments.torch else [])
    others = {library: Other(library, arguments.work) for library in libraries}
    times = Times()
    points = [(name, batch) for name, batches in networks.items() for batch in batches]
    for index in range(arguments.rounds):
        for library, other in others.items():
            times.add(library, TRIVIAL, other.time(*TRIVIAL, arguments.seconds))
        for point in points:
            turns = ["sconce", *libraries]
            for who in turns if index % 2 == 0 else reversed(turns):
                if who == "sconce":
                    times.add(who, point, sconce.time(*point, arguments.seconds)["plan"])
                else:
                    times.add(who, point, others[who].time(*point, arguments.seconds))
            if index < arguments.candle_rounds:
                for executor, both in sconce.time(*point, arguments.seconds, "--reference").items():
                    times.add(f"{executor} beside", point, both)
        print(f"round {index + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    return times, points, libraries


def table(times, points, libraries):
    """Markdown: µs per image."""
    columns = ["sconce", *libraries]
    heads = ["network", "batch", *columns, "× the faster of " + " and ".join(OTHERS)]
    candle = any(who == "candle beside" for who, _ in times.rounds)
    if candle:
        columns.append("candle beside")
        heads[-1:] = ["stock candle", heads[-1], "× candle"]
    rows = [heads, ["---"] * len(heads)]
    for name, batch in points:
        point = name, batch
        cells = ["{:.1f} ({:.1f})".format(*(us / batch for us in times.of(who, point))) for who in columns]
        faster = min(OTHERS, key=lambda who: times.of(who, point)[0])
        row = [name, str(batch), *cells, times.ratio(faster, "sconce", point)]
        if candle:
            row.append(times.ratio("candle beside", "plan beside", point))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def two_instances(arguments, sconce, networks):
    """Markdown: images per second of two instances on two cores against one."""
    lines = ["| network | batch | one | two on two cores | ratio |", "|---|---|---|---|---|"]
    for name, batches in networks.items():
        report = sconce.report(name, batches, "--threads", "1,2", "--rounds", arguments.rounds, "--seconds", arguments.seconds)
        for batch in batches:
            one, two = (
                next(p["us_per_image"] for p in report["points"] if (p["batch"], p["threads"]) == (batch, threads))
                for threads in (1, 2)
            )
            ratio = median(a / b for a, b in zip(one, two))
            lines.append(f"| {name} | {batch} | {1e6 / median(one):.0f} | {1e6 / median(two):.0f} | {ratio:.2f} |")
    return "\n".join(lines)


def processor():
    """What /proc/cpuinfo calls it."""
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1])
    parser.add_argument("work")
    parser.add_argument("--sconce", default="target/release/sconce")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--candle-rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--networks", type=lambda text: text.split(","))
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--serve", choices=CALLS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return answer(arguments.serve, arguments.work)
    with open(os.path.join(arguments.work, "networks.json")) as file:
        networks = json.load(file)
    networks = {name: networks[name] for name in arguments.networks or networks}
    sconce = Sconce(os.path.abspath(arguments.sconce), arguments.work)
    for name in networks:
        sconce.check(name)
    cores = sorted(os.sched_getaffinity(0))
    # What is started from here on runs there too.
    os.sched_setaffinity(0, cores[:1])
    times, points, libraries = measure(arguments, sconce, networks)
    print(f"{processor()}, core {cores[0]}, load {os.getloadavg()[0]:.1f}; µs per image,")
    print(f"median (minimum) of {arguments.rounds} rounds of {arguments.seconds} s ({arguments.candle_rounds} for candle); taken off per call: ", end="")
    print(", ".join("{} {:.1f} ({:.1f}) µs".format(who, *times.overhead(who)) for who in libraries) + "\n")
    print(table(times, points, libraries))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:2])
        print("\nImages per second\n\n" + two_instances(arguments, sconce, networks))


if __name__ == "__main__":
    main()
