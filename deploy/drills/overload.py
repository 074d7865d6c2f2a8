#!/usr/bin/env python3
"""Ten times what a server can do, for a minute, then clients that hang up: a server with a network that is slow beside a request's own
work, and `sconce bench overload` against it.

    deploy/drills/overload.py target/release/sconce [SECONDS [HANG_UPS]]

From 30 seconds on, a bar that is missed is a failure; shorter ones are too short to be judged by.
"""

import json
import random
import struct
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path

from common import IMAGE, Replica

CHANNELS, CONVOLUTIONS = 64, 12


def write_model(folder, program):
    """A network of convolutions with weights by chance, some milliseconds an image; published as anybody's would be."""
    layers, shapes, inner = [], {}, 1
    for number in range(CONVOLUTIONS):
        layers.append(f'{{ type = "conv2d", name = "conv{number}", out = {CHANNELS}, kernel = 3, padding = 1 }}')
        layers.append('{ type = "relu" }')
        shapes[f"conv{number}.weight"], shapes[f"conv{number}.bias"] = [CHANNELS, inner, 3, 3], [CHANNELS]
        inner = CHANNELS
    layers += ['{ type = "global_avg_pool" }', '{ type = "flatten" }', '{ type = "linear", name = "fc", out = "classes" }']
    shapes["fc.weight"], shapes["fc.bias"] = [10, CHANNELS], [10]
    labels = [str(digit) for digit in range(10)]
    (folder / "heavy").mkdir()
    text = f"description = 'Of the drill of overload.'\nlabels = {labels}\ninput = {{ channels = 1, height = 28, width = 28 }}\n"
    (folder / "heavy" / "model.toml").write_text(text + "layers = [" + ", ".join(layers) + "]\n")
    chance, header, data = random.Random(1), {}, b""
    for name, shape in shapes.items():
        begin, count = len(data), prod(shape)
        data += struct.pack(f"<{count}f", *(chance.uniform(-0.1, 0.1) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    weights = folder / "weights.safetensors"
    weights.write_bytes(struct.pack("<Q", len(text)) + text + data)
    subprocess.run([program, "models", "--models", str(folder), "import", str(weights), "--name", "heavy", "--add-version"],
                   check=True, stdout=subprocess.DEVNULL)
    weights.unlink()


def main():
    program = sys.argv[1]
    seconds, hang_ups = (sys.argv[2:] + ["60", "100000"][len(sys.argv) - 2:])[:2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, program)
        # One instance leaves the other cores to the connections and to the drill itself.
        replica = Replica(program, "engine.instances=1", "engine.cache=", "http.drain_delay_ms=0", models=folder)
        try:
            replica.start()
            report = folder / "report.json"
            asked = [program, "bench", "overload", f"http://127.0.0.1:{replica.port}/v1/predict", "--image", str(IMAGE),
                     "--duration", seconds, "--hang-ups", hang_ups, "--json", str(report)]
            code = subprocess.run(asked).returncode
            replica.stop()
        finally:
            replica.kill()
        missed = json.loads(report.read_text())["missed"] if report.exists() else []
    if missed and float(seconds) >= 30:
        raise SystemExit(f"missed: {', '.join(missed)}")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
