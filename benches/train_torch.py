#!/usr/bin/env python3
"""Times training epochs of the seed CNN in torch, to set beside `sconce train --recipe seed`.

usage: train_torch.py MNIST_DIR [EPOCHS [ORDER]]    (idx files, plain or .gz; needs torch and numpy)

The same work: 60,000 images, batch 64, Adam 1e-3, dropout 0.5, one thread, f32, data in memory; no augmentation. The images
come in the order of the file ORDER (`cargo run --release --example train_epoch` writes it), or at random. Prints wall and CPU
seconds and the mean loss of each epoch.
"""
import gzip
import os
import sys
import time

import numpy
import torch
from torch import nn


def read(folder, name, head):
    for path, opener in ((os.path.join(folder, name), open), (os.path.join(folder, name + ".gz"), gzip.open)):
        if os.path.exists(path):
            with opener(path, "rb") as file:
                return numpy.frombuffer(file.read(), dtype=numpy.uint8, offset=head)
    sys.exit(f"{folder}: no {name}[.gz]")


if len(sys.argv) not in (2, 3, 4):
    sys.exit(__doc__)
folder, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2
order = torch.from_numpy(numpy.fromfile(sys.argv[3], dtype="<u4").astype(numpy.int64)) if len(sys.argv) > 3 else None
torch.set_num_threads(1)
torch.manual_seed(1)
images = torch.from_numpy(read(folder, "train-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28).astype(numpy.float32) / 255)
labels = torch.from_numpy(read(folder, "train-labels-idx1-ubyte", 8).astype(numpy.int64))
model = nn.Sequential(
    nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5408, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10)
)
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
loss_of = nn.CrossEntropyLoss()
model.train()
for epoch in range(epochs):
    wall, cpu = time.monotonic(), time.process_time()
    batches = (torch.randperm(len(images)) if order is None else order).split(64)
    total = 0.0
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_of(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        total += loss.item()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"epoch {epoch + 1}: {wall:.1f} s wall, {cpu:.2f} s CPU, mean loss {total / len(batches):.4f}", flush=True)
