#!/usr/bin/env python3
"""Makes the networks that engine.py compares: the same weights for Sconce, ONNX Runtime, OpenVINO and torch.

    OUT/models/NAME/           for `sconce --models OUT/models`
    OUT/NAME-BATCH.onnx        for the others, with constant shapes
    OUT/NAME-BATCH.npz         an input and torch's logits of it
    OUT/NAME.pt                the module, for torch
    OUT/NAME-N.png             images, with torch's probabilities of them in OUT/NAME.npz
    OUT/networks.json          the batches of each network
    OUT/trivial-1.onnx         ten numbers through a ReLU: what a call costs

The weights are random; the statistics of each batch-norm are those of its own input, or nothing of the image would reach
the logits and any fault would go unseen.

usage: engine_models.py OUT    (needs torch, torchvision, timm, onnx, safetensors, numpy, Pillow)
"""
import hashlib
import json
import os
import sys
import warnings

import numpy
import onnx
import timm
import torch
import torchvision
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

GREY, PHOTO = (1, 28, 28), (3, 224, 224)
IMAGES = 3


class SeedCnn(nn.Module):
    """The network of Sconce's `seed-cnn`, served as it is trained: logits."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.fc1 = nn.Linear(5408, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2).flatten(1)
        return self.fc2(functional.relu(self.fc1(x)))


# By Sconce's name of the architecture: how it is made, its input, its batches.
NETWORKS = {
    "seed-cnn": (SeedCnn, GREY, [1, 8, 32, 128]),
    "resnet18": (torchvision.models.resnet18, PHOTO, [1, 8]),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, PHOTO, [1, 8]),
    "efficientnet_lite0": (lambda: timm.create_model("tf_efficientnet_lite0"), PHOTO, [1, 8]),
}


def images(count, shape, seed):
    """Soft blobs and noise, 0 to 1, each image another."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.randn(count, shape[0], 7, 7, generator=generator)
    noise = torch.randn(count, *shape, generator=generator)
    return (functional.interpolate(blobs, size=shape[1:], mode="bilinear") / 4 + noise / 16 + 0.5).clamp(0, 1)


def calibrated(network, shape):
    """Batch-norms with weights off their ones and zeros and the statistics of two batches of images."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(1)
    for norm in norms:
        norm.weight.copy_(torch.rand(norm.num_features, generator=generator) * 0.8 + 0.6)
        norm.bias.copy_(torch.randn(norm.num_features, generator=generator) * 0.3)
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for seed in (100, 101) if norms else ():
        network(images(16, shape, seed))
    return network.eval()


def write_model(folder, name, network, shape, classes):
    version = os.path.join(folder, name, "1")
    os.makedirs(version, exist_ok=True)
    weights = os.path.join(version, "model.safetensors")
    state = {key: value.contiguous() for key, value in network.state_dict().items() if value.is_floating_point()}
    save_file(state, weights)
    with open(os.path.join(folder, name, "model.toml"), "w") as file:
        file.write(f'architecture = "{name}"\nlabels = {json.dumps([str(label) for label in range(classes)])}\n')
        file.write("input = {{ channels = {}, height = {}, width = {} }}\n".format(*shape))
    with open(weights, "rb") as file:
        content = file.read()
    sha256 = hashlib.sha256(content).hexdigest()
    manifest = {
        "format": 1,
        "weights": {"file": "model.safetensors", "sha256": sha256, "bytes": len(content)},
        "architecture": name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "parent": None,
        "sconce": "none",
        "command": "engine_models.py",
        "seed": 0,
        "data": None,
        "training": None,
        "evaluation": None,
    }
    with open(os.path.join(version, "manifest.json"), "w") as file:
        json.dump(manifest, file)


def write_images(out, name, network, shape):
    levels = (images(IMAGES, shape, 7) * 255).round().to(torch.uint8)
    for index, planes in enumerate(levels.numpy()):
        pixels = planes[0] if shape[0] == 1 else planes.transpose(1, 2, 0)
        Image.fromarray(pixels).save(os.path.join(out, f"{name}-{index}.png"))
    probabilities = network(levels.float() / 255).softmax(1)
    numpy.savez(os.path.join(out, f"{name}.npz"), probabilities=probabilities.numpy())


def write_trivial(out):
    row = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 10]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "trivial", row[:1], row[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, os.path.join(out, "trivial-1.onnx"))
    x = numpy.linspace(-1, 1, 10, dtype=numpy.float32)[None]
    numpy.savez(os.path.join(out, "trivial-1.npz"), x=x, y=numpy.maximum(x, 0))


def write(out, name):
    make, shape, batches = NETWORKS[name]
    torch.manual_seed(0)
    network = calibrated(make(), shape)
    for batch in batches:
        x = images(batch, shape, batch)
        y = network(x)
        numpy.savez(os.path.join(out, f"{name}-{batch}.npz"), x=x.numpy(), y=y.numpy())
        path = os.path.join(out, f"{name}-{batch}.onnx")
        torch.onnx.export(network, (x,), path, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)
    write_model(os.path.join(out, "models"), name, network, shape, y.shape[1])
    write_images(out, name, network, shape)
    torch.save(network, os.path.join(out, f"{name}.pt"))
    spread = (y - y.mean(0)).abs().max() / y.abs().max()
    print(f"{name}: logits differ between images by {spread:.2f} of the largest", file=sys.stderr)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    warnings.filterwarnings("ignore")
    with torch.no_grad():
        write_trivial(out)
        for name in NETWORKS:
            write(out, name)
    with open(os.path.join(out, "networks.json"), "w") as file:
        json.dump({name: batches for name, (_, _, batches) in NETWORKS.items()}, file)


if __name__ == "__main__":
    main()
