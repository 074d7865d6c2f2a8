#!/usr/bin/env python3
"""Does a model that learns what is new forget what it knew? Retrains the shipped MNIST model on digits of a new kind.

usage: forgetting.py MNIST_DIR WORK [REQUEST]    (unpacked idx files; a folder that is made; needs numpy, and before:
                                                  cargo build --release --bins --example add_samples)

2,000 training images of the digits 0 to 4, rotated by 30 degrees, come from five sources as samples. REQUEST, JSON, is put
over the request, such as '{"without_replay": true}'. Prints the gate's word, and the accuracy of both versions on MNIST's test
images, on those of the digits 5 to 9, and on test images of 0 to 4, rotated.
"""
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target")), "release")
MODEL, DEGREES, IMAGES, SOURCES, SEEN = "mnist", 30.0, 2000, 5, 5


def idx(path):
    with open(path, "rb") as file:
        data = file.read()
    shape = struct.unpack(f">{data[3]}I", data[4:4 + 4 * data[3]])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def rotated(image):
    """By DEGREES about its middle, bilinear, black outside."""
    angle, middle = np.deg2rad(DEGREES), (np.array(image.shape) - 1) / 2
    rows, columns = np.indices(image.shape) - middle[:, None, None]
    y = np.cos(angle) * rows - np.sin(angle) * columns + middle[0]
    x = np.sin(angle) * rows + np.cos(angle) * columns + middle[1]
    wide = np.pad(image.astype(float), 1)
    y, x = np.clip(y + 1, 0, image.shape[0]), np.clip(x + 1, 0, image.shape[1])
    top, left = y.astype(int), x.astype(int)
    down, right = y - top, x - left
    mixed = (wide[top, left] * (1 - down) * (1 - right) + wide[top, left + 1] * (1 - down) * right
             + wide[top + 1, left] * down * (1 - right) + wide[top + 1, left + 1] * down * right)
    return np.rint(mixed).astype(np.uint8)


def png(image):
    """A grey PNG."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width = image.shape
    lines = b"".join(b"\0" + line.tobytes() for line in image)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def save(path, image):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(png(image))


def part(folder, name):
    return idx(os.path.join(folder, f"{name}-images-idx3-ubyte")), idx(os.path.join(folder, f"{name}-labels-idx1-ubyte"))


def set_out(mnist, work):
    """Models, datasets and images in WORK."""
    os.makedirs(os.path.join(work, "datasets"))
    os.symlink(os.path.abspath(mnist), os.path.join(work, "datasets", MODEL))
    subprocess.run(["cp", "-R", os.path.join(HERE, "..", "models"), work], check=True)
    images, labels = part(mnist, "train")
    chosen = np.random.default_rng(1).permutation(np.flatnonzero(labels < SEEN))[:IMAGES]
    for number, index in enumerate(chosen):
        save(os.path.join(work, "samples", f"site-{number % SOURCES}", str(labels[index]), f"{index}.png"), rotated(images[index]))
    images, labels = part(mnist, "t10k")
    for index in np.flatnonzero(labels < SEEN):
        save(os.path.join(work, "rotated", "test", str(labels[index]), f"{index}.png"), rotated(images[index]))


class Commands:
    """The way to the store and the pipeline: here by the command line."""

    def __init__(self, work):
        self.work = work
        settings = {"models": "models", "store.folder": "store", "retrain.datasets": "datasets", "engine.device": "cpu"}
        self.settings = [word for key, value in settings.items()
                         for word in ("--set", f"{key}={value if key.startswith('engine') else os.path.join(work, value)}")]

    def run(self, program, *arguments, **how):
        done = subprocess.run([os.path.join(RELEASE, program), *arguments], stdout=subprocess.PIPE, text=True, check=True, **how)
        return done.stdout

    def sconce(self, *arguments, **how):
        return self.run("sconce", *arguments, *self.settings, **how)

    def samples(self, folder):
        return self.run("examples/add_samples", os.path.join(self.work, "store"), MODEL, "10", folder)

    def retrain(self, request):
        """Every event."""
        text = self.sconce("retrain", "--lines", "--request", "-", "--work", os.path.join(self.work, "run"), input=json.dumps(request))
        return [json.loads(line) for line in text.splitlines()]


def accuracy(way, version, folder):
    text = way.sconce("evaluate", "--model", MODEL, "--version", str(version), "--data", folder, "--part", "test", "--json")
    report = json.loads(text)
    classes = report["per_class"]
    right = [round(one["recall"] * one["support"]) if one["support"] else 0 for one in classes]
    return right, [one["support"] for one in classes]


def figures(way, work, version):
    right, images = accuracy(way, version, os.path.join(work, "datasets", MODEL))
    turned, of = accuracy(way, version, os.path.join(work, "rotated"))
    shares = [sum(right) / sum(images), sum(right[SEEN:]) / sum(images[SEEN:]), sum(turned) / sum(of)]
    return " | ".join(f"{share * 100:.2f}" for share in shares)


if len(sys.argv) not in (3, 4):
    sys.exit(__doc__)
mnist, work = sys.argv[1:3]
set_out(mnist, work)
way = Commands(work)
print(way.samples(os.path.join(work, "samples")).strip(), file=sys.stderr)
request = {"model": MODEL, **(json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})}
events = way.retrain(request)
finished = events[-1]
print(json.dumps(finished))
print("| version | test | digits 5 to 9 | rotated 0 to 4 |\n|---|---|---|---|")
for version in [1, finished["version"]]:
    if version:
        print(f"| {version} | {figures(way, work, version)} |")
epochs = sum(event["event"] == "epoch" for event in events)
print(f"{epochs} epochs; {sum(event['event'] == 'check' and not event['passed'] for event in events)} checks failed", file=sys.stderr)
