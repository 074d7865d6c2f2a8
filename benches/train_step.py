#!/usr/bin/env python3
"""Times training steps of small networks in torch, to set beside `cargo run --release --example train_step`.

usage: train_step.py NET [STEPS]    (seed-cnn, small-cnn, resnet or separable; needs torch)

The same networks, batches and Adam, one thread, f32, eager, on random images. Prints the mean CPU time of the steps after
the first five.
"""
import sys
import time

import torch
from torch import nn

WARM_UP = 5


def block(into, out, kernel=3, stride=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, *([act(inplace=True)] if act else []))


class Residual(nn.Module):
    def __init__(self, into, out, stride):
        super().__init__()
        self.body = nn.Sequential(block(into, out, stride=stride), block(out, out, act=None))
        self.down = block(into, out, 1, stride, act=None) if stride != 1 else nn.Identity()

    def forward(self, x):
        return torch.relu(self.body(x) + self.down(x))


def head(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)


def seed_cnn():
    dense = nn.Flatten(), nn.Linear(5408, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10)
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), *dense)


def small_cnn():
    return nn.Sequential(block(1, 16), nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d(2), block(32, 64), *head(64))


def resnet():
    blocks = Residual(64, 64, 1), Residual(64, 64, 1), Residual(64, 128, 2), Residual(128, 128, 1)
    return nn.Sequential(block(3, 64), *blocks, *head(128))


def separable():
    layers, channels = [block(3, 32, act=nn.ReLU6)], 32
    for out, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        layers += [block(channels, channels, 3, stride, channels, nn.ReLU6), block(channels, out, 1, act=nn.ReLU6)]
        channels = out
    return nn.Sequential(*layers, *head(channels))


NETS = {
    "seed-cnn": (seed_cnn, (64, 1, 28, 28)),
    "small-cnn": (small_cnn, (128, 1, 28, 28)),
    "resnet": (resnet, (32, 3, 32, 32)),
    "separable": (separable, (32, 3, 32, 32)),
}

if len(sys.argv) not in (2, 3) or sys.argv[1] not in NETS:
    sys.exit(__doc__)
build, shape = NETS[sys.argv[1]]
steps = WARM_UP + (int(sys.argv[2]) if len(sys.argv) == 3 else 30)
torch.set_num_threads(1)
torch.manual_seed(1)
images = torch.rand(steps * shape[0], *shape[1:])
labels = torch.arange(len(images)) % 10
model = build().train()
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
loss_of = nn.CrossEntropyLoss()
for step, batch in enumerate(torch.randperm(len(images)).split(shape[0])):
    if step == WARM_UP:
        start = time.process_time()
    optimizer.zero_grad()
    loss = loss_of(model(images[batch]), labels[batch])
    loss.backward()
    optimizer.step()
    loss.item()
spent, steps = 1000 * (time.process_time() - start), steps - WARM_UP
print(f"{sys.argv[1]}, batch {shape[0]}: {spent / steps:.2f} ms per step, {steps} steps")
