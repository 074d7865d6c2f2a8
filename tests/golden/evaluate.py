"""Writes evaluate.json: predictions made up to hold every edge, and scikit-learn's figures of them.

    python -m venv venv && venv/bin/pip install numpy==2.4.6 scikit-learn==1.9.1
    venv/bin/python tests/golden/evaluate.py
"""
import json
import pathlib
import warnings

import numpy as np
from scipy.stats import binomtest
from sklearn import metrics

ROWS, CLASSES, BINS = 60, 5, 15
LABELS = list(range(CLASSES))


def predictions():
    """Class 3 is never predicted, class 4 has no samples; ties, certainties and bin edges in the first rows."""
    rng = np.random.default_rng(7)
    labels = rng.choice(4, ROWS, p=[0.4, 0.3, 0.2, 0.1])
    logits = rng.normal(size=(ROWS, CLASSES)) * 1.5
    logits[np.arange(ROWS), labels] += 2.2
    logits[:, 3] = logits.min(axis=1) - 0.1
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    rows[0] = [0.2] * 5                     # all tie, on a bin's edge
    rows[1] = [0.4, 0.4, 0.2, 0.0, 0.0]     # two tie at the top, on an edge
    rows[2] = [0.0, 0.5, 0.0, 0.0, 0.5]
    rows[3] = [0.6, 0.1, 0.1, 0.1, 0.1]     # ties below the top, on an edge
    rows[4] = [1.0, 0.0, 0.0, 0.0, 0.0]     # sure and right
    rows[5] = [0.0, 0.0, 1.0, 0.0, 0.0]     # sure and wrong: clipped
    rows[6] = [0.25, 0.25, 0.25, 0.0, 0.25]
    labels[:7] = [2, 0, 1, 2, 0, 1, 3]
    return rows, labels


def calibration(rows, labels):
    """Guo et al. 2017: bins open below and closed above."""
    confidence, right = rows.max(axis=1), rows.argmax(axis=1) == labels
    bins, ece = [], 0.0
    for index in range(BINS):
        inside = (confidence > index / BINS) & (confidence <= (index + 1) / BINS)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            ece += inside.mean() * gap
            bins.append({
                "low": index / BINS, "high": (index + 1) / BINS, "n": int(inside.sum()),
                "hits": int(right[inside].sum()), "confidence": confidence[inside].mean(),
                "accuracy": right[inside].mean(),
            })
    return bins, ece


def wilson(hits, n):
    if n == 0:
        return {"low": 0.0, "high": 1.0}
    interval = binomtest(int(hits), int(n)).proportion_ci(method="wilson")
    return {"low": interval.low, "high": interval.high}


def averages(labels, predicted, average):
    figures = metrics.precision_recall_fscore_support(
        labels, predicted, labels=LABELS, average=average, zero_division=0)
    return dict(zip(["precision", "recall", "f1"], figures[:3]))


def report(rows, labels):
    predicted = rows.argmax(axis=1)
    matrix = metrics.confusion_matrix(labels, predicted, labels=LABELS)
    of_class = metrics.precision_recall_fscore_support(labels, predicted, labels=LABELS, zero_division=0)
    per_class = [
        {
            "label": f"class {c}", "precision": p, "recall": r, "f1": f, "support": int(s),
            "precision_interval": wilson(matrix[c, c], matrix[:, c].sum()),
            "recall_interval": wilson(matrix[c, c], matrix[c].sum()),
        }
        for c, (p, r, f, s) in enumerate(zip(*of_class))
    ]
    mistaken = [(-matrix[a, p], a, p) for a in LABELS for p in LABELS if a != p and matrix[a, p]]
    bins, ece = calibration(rows, labels)
    return {
        "n": len(labels),
        "accuracy": metrics.accuracy_score(labels, predicted),
        "accuracy_interval": wilson(np.trace(matrix), len(labels)),
        "nll": metrics.log_loss(labels, rows, labels=LABELS),
        "brier": metrics.brier_score_loss(labels, rows, labels=LABELS, scale_by_half=False),
        "ece": ece,
        "top_k": {str(k): metrics.top_k_accuracy_score(labels, rows, k=k, labels=LABELS) for k in range(1, CLASSES)},
        "macro": averages(labels, predicted, "macro"),
        "weighted": averages(labels, predicted, "weighted"),
        "per_class": per_class,
        "most_confused": [
            {"actual": a, "predicted": p, "count": int(-count)} for count, a, p in sorted(mistaken)[:20]],
        "confusion_matrix": matrix.tolist(),
        "reliability": bins,
    }


def main():
    warnings.simplefilter("ignore", FutureWarning)
    rows, labels = predictions()
    # Rounded, so that the file holds exactly the numbers that both sides read.
    rows = np.array(json.loads(json.dumps(np.round(rows, 9).tolist())))
    golden = {
        "names": [f"class {c}" for c in LABELS],
        "labels": labels.tolist(),
        "probabilities": rows.tolist(),
        "report": report(rows, labels),
    }
    path = pathlib.Path(__file__).with_name("evaluate.json")
    path.write_text(json.dumps(golden, default=float, separators=(",", ":")).replace('],[', '],\n[') + "\n")


main()
