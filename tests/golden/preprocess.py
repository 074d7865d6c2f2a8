#!/usr/bin/env python3
"""Makes preprocess/: small photos, and the pixels that torchvision and Pillow make of them before normalisation.

The photos are cut from scikit-image's samples: the cat Chelsea (CC0, Stefan van der Walt) and the astronaut Eileen
Collins (public domain, NASA). Every golden is the uint8 image after Resize and CenterCrop, a lossless PNG; cases.json
says which file, keys and input each belongs to, and holds the normalised tensor's means.
usage: preprocess.py FOLDER    (skimage/data of the scikit-image wheel; made with torchvision 0.29.2, Pillow 13.0.0)
"""
import json
import os
import sys

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

source = sys.argv[1]
here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "preprocess")
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5] * 3, [0.5] * 3)
LITE = ([127 / 255] * 3, [128 / 255] * 3)
BILINEAR, BICUBIC = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC


def save_photos():
    cat = Image.open(os.path.join(source, "chelsea.png")).convert("RGB")
    face = Image.open(os.path.join(source, "astronaut.png")).convert("RGB")
    wide = cat.crop((70, 20, 370, 219)).resize((165, 109), Image.Resampling.LANCZOS)
    tall = face.crop((150, 0, 340, 290)).resize((97, 148), Image.Resampling.LANCZOS)
    small = face.crop((170, 40, 290, 130)).resize((40, 30), Image.Resampling.LANCZOS)
    # Transparent to the left, with the photo's own colours under it.
    fade = np.linspace(0, 255, wide.width).astype(np.uint8)
    alpha = Image.fromarray(np.tile(fade, (wide.height, 1)))
    clear = wide.copy()
    clear.putalpha(alpha)
    wide.save(os.path.join(here, "wide.png"), optimize=True)
    tall.save(os.path.join(here, "tall.png"), optimize=True)
    tall.save(os.path.join(here, "tall.jpg"), quality=92)
    small.save(os.path.join(here, "small.png"), optimize=True)
    wide.convert("L").save(os.path.join(here, "grey.png"), optimize=True)
    clear.save(os.path.join(here, "alpha.png"), optimize=True)
    wide.quantize(64).save(os.path.join(here, "palette.png"), optimize=True)


def transform(resize, crop, interpolation):
    return v2.Compose([v2.Resize(resize, interpolation=interpolation), v2.CenterCrop(crop)])


# name, photo, keys of [preprocess], input height and width, Resize, interpolation, moments
CASES = [
    ("imagenet-down", "wide.png", "preset = 'imagenet'", (64, 64), 73, BILINEAR, IMAGENET),
    ("imagenet-tall", "tall.png", "preset = 'imagenet'", (64, 64), 73, BILINEAR, IMAGENET),
    ("imagenet-up", "small.png", "preset = 'imagenet'", (96, 96), 109, BILINEAR, IMAGENET),
    ("imagenet-224", "small.png", "preset = 'imagenet'", (224, 224), 256, BILINEAR, IMAGENET),
    ("imagenet-grey", "grey.png", "preset = 'imagenet'", (64, 64), 73, BILINEAR, IMAGENET),
    ("imagenet-alpha", "alpha.png", "preset = 'imagenet'", (64, 64), 73, BILINEAR, IMAGENET),
    ("imagenet-palette", "palette.png", "preset = 'imagenet'", (64, 64), 73, BILINEAR, IMAGENET),
    ("imagenet-jpeg", "tall.jpg", "preset = 'imagenet'", (64, 64), 73, BILINEAR, IMAGENET),
    ("timm-down", "wide.png", "preset = 'timm'", (64, 64), 73, BICUBIC, IMAGENET),
    ("timm-up", "small.png", "preset = 'timm'", (96, 96), 109, BICUBIC, IMAGENET),
    ("inception-tall", "tall.png", "preset = 'inception'", (75, 75), 85, BICUBIC, HALF),
    ("lite-down", "tall.png", "preset = 'efficientnet-lite'", (64, 64), 73, BICUBIC, LITE),
    ("size-free", "wide.png", "preset = 'imagenet', resize_size = 66", (64, 64), 66, BILINEAR, IMAGENET),
    ("padded", "tall.png", "preset = 'imagenet', resize_size = 50", (64, 61), 50, BILINEAR, IMAGENET),
    ("stretched", "wide.png", "mean = [0.5], std = [0.5]", (48, 72), [48, 72], BILINEAR, HALF),
]

os.makedirs(here, exist_ok=True)
save_photos()
cases = []
for name, photo, keys, crop, resize, interpolation, moments in CASES:
    image = Image.open(os.path.join(here, photo)).convert("RGB")
    pixels = transform(resize, crop, interpolation)(image)
    pixels.save(os.path.join(here, f"{name}.golden.png"), optimize=True)
    mean, std = moments
    tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(pixels)
    assert tensor.std() > 0.2, f"{name}: too flat to show a mistake"
    means = [round(value, 5) for value in tensor.mean(dim=(1, 2)).tolist()]
    cases.append({"name": name, "photo": photo, "keys": keys, "height": crop[0], "width": crop[1], "means": means})
with open(os.path.join(here, "cases.json"), "w") as file:
    json.dump(cases, file, indent=1)
    file.write("\n")
