#!/usr/bin/env python3
"""Times an epoch of the recipe `seed` on MNIST in Sconce, torch and stock candle, in turns on one core.

usage: train_epoch.py MNIST_DIR [ROUNDS [CORE]]    (unpacked idx files; needs torch and numpy, and before:
                                                    cargo build --release --example train_epoch)

Everybody has one thread and the same batches of 64 in the same order, without augmentation. Sconce and candle run with the
memory settings that `sconce train` gives itself; candle once more as it comes. Prints the processor seconds of each epoch,
their medians, and the ratios of the medians.
"""
import os
import re
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLE = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target")), "release/examples/train_epoch")
ONE_THREAD = {name: "1" for name in ("RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "OMP_NUM_THREADS")}
KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(8 << 30), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}


def epoch(command, settings):
    """Processor seconds and mean loss, as the program prints them last."""
    environment = {**os.environ, **ONE_THREAD, **settings}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [float(number) for number in re.search(r"([\d.]+) s CPU, mean loss ([\d.]+)\s*$", output).groups()]


if len(sys.argv) not in (2, 3, 4):
    sys.exit(__doc__)
folder, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
os.sched_setaffinity(0, {int(sys.argv[3]) if len(sys.argv) > 3 else max(os.sched_getaffinity(0))})
with tempfile.TemporaryDirectory() as work:
    order = os.path.join(work, "order")
    ways = {
        "Sconce": ([EXAMPLE, "sconce", folder, order], KEEPS_MEMORY),
        "torch": ([sys.executable, os.path.join(HERE, "train_torch.py"), folder, "1", order], {}),
        "stock candle": ([EXAMPLE, "candle", folder], KEEPS_MEMORY),
        "stock candle, memory as it comes": ([EXAMPLE, "candle", folder], {}),
    }
    times = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (command, settings) in ways.items():
            seconds, loss = epoch(command, settings)
            times[way].append(seconds)
            print(f"{way}: {seconds:.2f} s, mean loss {loss:.4f}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
medians = {way: statistics.median(all) for way, all in times.items()}
print("| | CPU seconds per epoch | median | × Sconce |\n|---|---|---|---|")
for way, all in times.items():
    print(f"| {way} | {', '.join(f'{t:.1f}' for t in all)} | {medians[way]:.1f} | {medians[way] / medians['Sconce']:.2f} |")
