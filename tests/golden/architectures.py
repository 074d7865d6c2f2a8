#!/usr/bin/env python3
"""Makes architectures.json, architectures.safetensors and architectures_names.json.gz: the logits that torch computes for
torchvision's networks (and timm's), and what files of other libraries call the same parameters.

Weights and images follow from a formula that the test repeats (`number` below), so only the running statistics of the
batch-norms are shipped: with others than those of real data the logits would hardly depend on the image, and a broken
network would pass. Before anything is written, each library's network is given the same weights and must give the same
logits, and the logits of the two images must differ clearly.

usage: architectures.py    (made with torch 2.15.0, torchvision 0.29.2, timm 1.0.31, efficientnet_lite_pytorch 0.1.0)
"""
import gzip
import json
import os
import re

import efficientnet_lite_pytorch
import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import save_file

CLASSES = 10
IMAGES = 2
CALIBRATION_IMAGES = 24

# Rows and columns of the input: small, not square, and odd where padding and rounding depend on it.
SIZES = {
    "convnext_tiny": (64, 96),
    "densenet121": (64, 80),
    "efficientnet_b0": (64, 80),
    "efficientnet_lite0": (65, 70),
    "mobilenet_v2": (64, 80),
    "mobilenet_v3_large": (64, 80),
    "mobilenet_v3_small": (64, 80),
    "resnet18": (64, 80),
    "resnet34": (64, 80),
    "resnet50": (64, 80),
    "squeezenet1_1": (66, 84),
    "vgg11_bn": (224, 224),
}
TIMM = {
    "convnext_tiny": "convnext_tiny",
    "densenet121": "densenet121",
    "efficientnet_b0": "efficientnet_b0",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "vgg11_bn": "vgg11_bn",
}


def number(name, count):
    """`count` numbers in [-1, 1): FNV-1a of the name starts SplitMix64, whose upper 24 bits are taken."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def parameter(name, shape):
    u = number(name, int(np.prod(shape)))
    if name.endswith("layer_scale"):
        values = np.float32(0.5) + np.float32(0.25) * u
    elif name.endswith("bias"):
        values = np.float32(0.25) * u
    elif len(shape) >= 2:
        values = np.float32(np.sqrt(6 / np.prod(shape[1:]))) * u
    else:
        values = np.float32(1) + np.float32(0.25) * u
    return torch.from_numpy(values.reshape(shape))


def image(index, height, width):
    """Squares of random levels, 4 pixels wide in even images and 16 in odd ones, and an offset for each channel."""
    side = 4 if index % 2 == 0 else 16
    rows, columns = np.arange(height) // side, np.arange(width) // side
    squares = number(f"image {index}", 3 * height * width).reshape(3, height, width)
    offsets = number(f"offset {index}", 3).reshape(3, 1, 1)
    return torch.from_numpy(squares[:, rows][:, :, columns] + offsets)


def network(name):
    if name == "efficientnet_lite0":
        return timm.create_model(TIMM[name], num_classes=CLASSES)
    return getattr(torchvision.models, name)(num_classes=CLASSES)


def calibrate(model, images):
    """Running statistics from images, rounded to what f16 holds."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(images)
    for norm in norms:
        norm.eval()
        for statistic in (norm.running_mean, norm.running_var):
            statistic.copy_(statistic.half().float())
        assert norm.running_var.min() > 1e-4, norm.running_var.min()


def counted(name):
    return name.endswith("num_batches_tracked")


def transplant(model, pairs, state):
    """Gives a model of other names the same weights."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    renamed = {foreign: state[own].reshape(shapes[foreign]) for foreign, _, own in pairs}
    model.load_state_dict(renamed, strict=False)
    return model.eval()


def paired(model, state):
    """[foreign name, foreign shape, own name]: both libraries register the parameters in the same order."""
    foreign = [(n, list(t.shape)) for n, t in model.state_dict().items() if not counted(n)]
    own = [n for n in state if not counted(n)]
    assert len(foreign) == len(own)
    assert all(np.prod(shape) == state[name].numel() for (_, shape), name in zip(foreign, own))
    return [[n, shape, name] for (n, shape), name in zip(foreign, own)]


def close(found, expected):
    return (found - expected).abs().max() < 1e-5 * expected.abs().max()


def foreign_names(name, state, images, logits):
    """By dialect, and timm's logits where its network divides by another ε."""
    dialects = {"own": [[n, list(t.shape), n] for n, t in state.items()]}
    other_logits = None
    if name in TIMM:
        model = timm.create_model(TIMM[name], num_classes=CLASSES)
        dialects["timm"] = paired(model, state)
        model = transplant(model, dialects["timm"], state)
        if name.startswith("mobilenet_v3"):
            other_logits = model(images)
            for norm in model.modules():
                if isinstance(norm, torch.nn.BatchNorm2d):
                    norm.eps = 1e-3
        assert close(model(images), logits), name
    if name == "efficientnet_lite0":
        model = efficientnet_lite_pytorch.EfficientNet.from_name(
            "efficientnet-lite0", num_classes=CLASSES, image_size=list(images.shape[2:])
        )
        dialects["efficientnet_lite_pytorch"] = paired(model, state)
        assert close(transplant(model, dialects["efficientnet_lite_pytorch"], state)(images), logits), name
    if name == "densenet121":
        early = [[re.sub(r"(norm|relu|conv)([12])\.", r"\1.\2.", n) if "denselayer" in n else n, s, own]
                 for n, s, own in dialects["own"] if not counted(n)]
        dialects["before torch 0.4"] = early
    return dialects, other_logits


torch.set_grad_enabled(False)
golden, statistics, names = {}, {}, {}
for name, (height, width) in SIZES.items():
    model = network(name).eval()
    state = model.state_dict()
    for key, tensor in state.items():
        if not counted(key) and "running" not in key:
            tensor.copy_(parameter(key, tuple(tensor.shape)))
    images = torch.stack([image(i, height, width) for i in range(CALIBRATION_IMAGES)])
    calibrate(model, images[: 6 if name == "vgg11_bn" else CALIBRATION_IMAGES])
    images = images[:IMAGES]
    logits = model(images)
    spread = (logits[0] - logits[1]).abs().max() / logits.abs().max()
    print(f"{name}: largest logit {logits.abs().max():.3g}, the images differ by {spread:.3g} of it", flush=True)
    assert spread > 0.1, name
    names[name], other_logits = foreign_names(name, state, images, logits)
    golden[name] = {"input": [3, height, width], "logits": logits.tolist()}
    if other_logits is not None:
        golden[name]["timm_logits"] = other_logits.tolist()
    for key, tensor in state.items():
        if "running" in key:
            statistics[f"{name}/{key}"] = tensor.half()

here = os.path.dirname(os.path.abspath(__file__))
save_file(statistics, os.path.join(here, "architectures.safetensors"))
with open(os.path.join(here, "architectures.json"), "w") as file:
    json.dump(golden, file)
    file.write("\n")
with open(os.path.join(here, "architectures_names.json.gz"), "wb") as file:
    with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
        packed.write(json.dumps(names).encode())
