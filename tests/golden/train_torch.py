"""Writes train_torch.json: what torch's losses, optimisers and schedules give for fixed numbers.

    pip install torch && python3 tests/golden/train_torch.py

Everything is float64, so that the numbers are torch's formulas and not its rounding.
"""

import json
import math
from pathlib import Path

import torch

STEPS = 12
START = [1.0, -0.5, 0.25, 0.0]


def gradient(step):
    """Deterministic, of both signs and of many sizes; short decimals, so that float32 reads them alike."""
    return [round(math.sin(1.7 * step + k) * 10.0 ** (k - 2), 4) for k in range(len(START))]


def cross_entropy(smoothing):
    logits = [[1.0, -2.0, 0.5], [0.0, 0.0, 3.0], [-1.0, 4.0, 2.0], [30.0, -30.0, 0.0]]
    labels = [0, 1, 2, 2]
    x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x, torch.tensor(labels), label_smoothing=smoothing)
    loss.backward()
    return dict(
        logits=logits, labels=labels, smoothing=smoothing, loss=loss.item(), gradient=x.grad.flatten().tolist()
    )


def momentum_of(group):
    return group["betas"][0] if "betas" in group else group["momentum"]


def trajectory(rule, make, one_cycle_peak=None):
    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = make([w])
    schedule = one_cycle_peak and torch.optim.lr_scheduler.OneCycleLR(optimizer, one_cycle_peak, total_steps=STEPS)
    paces, weights = [], []
    for step in range(STEPS):
        group = optimizer.param_groups[0]
        paces.append([group["lr"], momentum_of(group) if schedule else None])
        w.grad = torch.tensor(gradient(step), dtype=torch.float64)
        optimizer.step()
        weights.append(w.tolist())
        if schedule and step + 1 < STEPS:
            schedule.step()
    return dict(rule=rule, paces=paces, weights=weights)


def one_cycle(steps, peak):
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps)
    paces = []
    for step in range(steps):
        group = optimizer.param_groups[0]
        paces.append([group["lr"], group["betas"][0]])
        w.grad = torch.zeros(1)
        optimizer.step()
        if step + 1 < steps:
            schedule.step()
    return dict(steps=steps, peak=peak, paces=paces)


def optimizers():
    adam = dict(beta1=0.9, beta2=0.999, eps=1e-8)
    sgd = lambda momentum, nesterov: (
        dict(kind="sgd", momentum=momentum, nesterov=nesterov),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=momentum, nesterov=nesterov),
    )
    yield sgd(0.0, False)
    yield sgd(0.9, False)
    yield sgd(0.9, True)
    yield dict(kind="adam", **adam), lambda p: torch.optim.Adam(p, lr=0.05)
    decay = dict(kind="adamw", weight_decay=0.02, **adam)
    yield decay, lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.02)
    yield decay, lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.02), 0.3


golden = dict(
    torch=torch.__version__,
    start=START,
    gradients=[gradient(step) for step in range(STEPS)],
    optimizers=[trajectory(*case) for case in optimizers()],
    one_cycle=[one_cycle(20, 0.004), one_cycle(7, 1.0), one_cycle(2, 0.1)],
    cross_entropy=[cross_entropy(smoothing) for smoothing in (0.0, 0.1, 0.5)],
)
out = Path(__file__).with_suffix(".json")
out.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
