#!/usr/bin/env python3
"""Does a model that learns what is new forget what it knew, and does it learn what is false? Over HTTP alone.

usage: forgetting.py MNIST_DIR [--without-replay] [--flip SHARE random|7-1] [--set KEY=VALUE]... [--request JSON]
       [--expect STATE]
       (unpacked idx files; needs numpy, and before: cargo build --release)

Starts a server over copies of the shipped models. 2,000 training images of the digits 0 to 4, rotated by 30 degrees, come from
five sources as samples; a retrain is asked for and followed; both versions then answer MNIST's test images, upright, and those
of 0 to 4 rotated. With --flip the images are upright and of all digits, and SHARE of them (of the sevens) has a wrong label.
Ends with 1 where the job's state is not the expected one, and where a version serves whose accuracy is more than 0.5 points lower, or whose recall of a digit is more than 2.
"""
import argparse
import json
import os
import shutil
import struct
import subprocess
import tempfile
import urllib.request
import uuid
import zlib

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
SCONCE = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target")), "release", "sconce")
MODEL, DEGREES, IMAGES, SOURCES, SEEN, BATCH = "mnist", 30.0, 2000, 5, 5, 50


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


def part(folder, name):
    return idx(os.path.join(folder, f"{name}-images-idx3-ubyte")), idx(os.path.join(folder, f"{name}-labels-idx1-ubyte"))


class Server:
    """A server over WORK, asked as anybody would."""

    def __init__(self, work, mnist, settings):
        os.makedirs(os.path.join(work, "datasets"))
        os.symlink(os.path.abspath(mnist), os.path.join(work, "datasets", MODEL))
        shutil.copytree(os.path.join(HERE, "..", "models"), os.path.join(work, "models"))
        settings = [f"models={work}/models", f"store.folder={work}/store", f"retrain.datasets={work}/datasets",
                    "http.listen=127.0.0.1:0", "admin.address=", "http.drain_delay_ms=0", "engine.cache=", "engine.device=cpu", *settings]
        flags = [word for setting in settings for word in ("--set", setting)]
        self.log = open(os.path.join(work, "log"), "w")
        self.process = subprocess.Popen([SCONCE, "serve", *flags], stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.url = self.process.stdout.readline().split()[-1]
        self.wait("/health/ready")

    def wait(self, path):
        while True:
            try:
                return self.get(path)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return json.load(answer)

    def post(self, path, kind, body):
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def form(self, path, fields):
        """Multipart; a field is (name, bytes)."""
        mark = uuid.uuid4().hex
        parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
                 for name, value in fields]
        return self.post(path, f"multipart/form-data; boundary={mark}", b"".join(parts) + f"--{mark}--\r\n".encode())

    def samples(self, images, labels, source):
        for at in range(0, len(images), BATCH):
            pairs = zip(images[at:at + BATCH], labels[at:at + BATCH])
            fields = [field for image, label in pairs for field in (("label", str(label).encode()), ("image", png(image)))]
            answer = self.form(f"/v1/samples?model={MODEL}&source={source}", fields)
            for one in answer["samples"]:
                assert one.get("outcome") in ("accepted", "duplicate"), one

    def retrain(self, request):
        """Every event, then the job."""
        job = self.post("/v1/retrain", "application/json", json.dumps({"model": MODEL, **request}).encode())
        events = []
        with urllib.request.urlopen(f"{self.url}/v1/retrain/{job['id']}/events") as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    events.append(json.loads(line[6:]))
        return events, self.get(f"/v1/retrain/{job['id']}")

    def answers(self, version, images):
        """The most probable class of each."""
        answers = []
        for at in range(0, len(images), BATCH):
            fields = [("image", png(image)) for image in images[at:at + BATCH]]
            answer = self.form(f"/v1/models/{MODEL}/versions/{version}/predict", fields)
            answers += [int(one["label"]) for one in answer["predictions"]]
        return np.array(answers)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def flipped(labels, share, how, random):
    """SHARE of the labels made wrong: each another digit, or sevens made ones."""
    labels = labels.copy()
    among = np.arange(len(labels)) if how == "random" else np.flatnonzero(labels == 7)
    chosen = random.permutation(among)[:round(share * len(among))]
    labels[chosen] = (labels[chosen] + random.integers(1, 10, len(chosen))) % 10 if how == "random" else 1
    return labels


def recalls(answers, labels):
    return np.array([np.mean(answers[labels == digit] == digit) for digit in range(10)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist")
    parser.add_argument("--without-replay", action="store_true")
    parser.add_argument("--flip", nargs=2, metavar=("SHARE", "HOW"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--request", type=json.loads, default={})
    parser.add_argument("--expect")
    args = parser.parse_args()
    random = np.random.default_rng(1)
    images, labels = part(args.mnist, "train")
    if args.flip:
        chosen = random.permutation(len(labels))[:IMAGES]
        new, told = images[chosen], flipped(labels[chosen], float(args.flip[0]), args.flip[1], random)
    else:
        chosen = random.permutation(np.flatnonzero(labels < SEEN))[:IMAGES]
        new, told = np.array([rotated(image) for image in images[chosen]]), labels[chosen]
    work = tempfile.mkdtemp(prefix="forgetting-")
    server = Server(work, args.mnist, args.set)
    try:
        for source in range(SOURCES):
            server.samples(new[source::SOURCES], told[source::SOURCES], f"site-{source}")
        request = {**({"without_replay": True} if args.without_replay else {}), **args.request}
        events, job = server.retrain(request)
        for event in events:
            if event["event"] == "check" and not event["passed"]:
                print(f"failed: {event['check']}: {event['text']}")
        print(f"{job['state']}, version {job.get('version')}, promoted {job.get('promoted')}, reason {job.get('reason')}")
        report(server, args.mnist, job)
        if args.expect not in (None, job["state"]):
            raise SystemExit(f"the job is {job['state']}, not {args.expect}")
    finally:
        server.stop()
        shutil.rmtree(work)


def report(server, mnist, job):
    images, labels = part(mnist, "t10k")
    turned = np.array([rotated(image) for image in images[labels < SEEN]])
    print("| version | test | digits 5 to 9 | rotated 0 to 4 |\n|---|---|---|---|")
    shares, by_digit = {}, {}
    for version in [1] + ([job.get("version")] if job.get("version") else []):
        answers = server.answers(version, images)
        right = answers == labels
        shares[version], by_digit[version] = right.mean(), recalls(answers, labels)
        of_turned = (server.answers(version, turned) == labels[labels < SEEN]).mean()
        figures = [right.mean(), right[labels >= SEEN].mean(), of_turned]
        print(f"| {version} | " + " | ".join(f"{figure * 100:.2f}" for figure in figures) + " |")
    serves = server.get(f"/v1/models/{MODEL}")["champion"]
    print(f"version {serves} serves")
    worse = shares[serves] < shares[1] - 0.005 or (by_digit[serves] < by_digit[1] - 0.02).any()
    if worse:
        raise SystemExit(f"version {serves} serves though it is worse: {by_digit[1]} {by_digit[serves]}")


if __name__ == "__main__":
    main()
