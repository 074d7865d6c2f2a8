#!/usr/bin/env python3
"""Makes seed_cnn.safetensors and seed_cnn.json: the logits that torch computes for `seed-cnn` on random weights.

The input is 1×8×8 and there are 3 classes, so that the file stays small; names and shapes are those of a torch module.
usage: seed_cnn.py    (needs torch and safetensors; made with torch 2.15.0)
"""
import json
import os

import torch
from safetensors.torch import save_file
from torch import nn

torch.manual_seed(7)
torch.set_num_threads(1)


class SeedCnn(nn.Module):
    def __init__(self, side, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        pooled = (side - 2) // 2
        self.fc1 = nn.Linear(32 * pooled * pooled, 64)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        return self.fc2(self.dropout(torch.relu(self.fc1(x.flatten(1)))))


here = os.path.dirname(os.path.abspath(__file__))
model = SeedCnn(8, 3).eval()
images = torch.rand(5, 1, 8, 8)
with torch.no_grad():
    logits = model(images)
assert logits.std(dim=0).min() > 1e-2, "the logits do not vary with the image"
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, os.path.join(here, "seed_cnn.safetensors"))
with open(os.path.join(here, "seed_cnn.json"), "w") as file:
    json.dump({"images": images.flatten(1).tolist(), "logits": logits.tolist()}, file)
    file.write("\n")
