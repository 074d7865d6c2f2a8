"""Event files as the stock tensorboard package sees them.

    pip install tensorboard
    python3 tests/golden/train_tensorboard.py              writes train_tensorboard.json: the bytes of known events
    python3 tests/golden/train_tensorboard.py RUN_DIR      reads a run's event file and compares it with history.json
"""

import io
import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def scalars(**values):
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def known_events():
    yield Event(wall_time=1500000000.25, file_version="brain.Event:2")
    yield Event(wall_time=1500000001.0, step=1, summary=scalars(**{"loss/train": 0.5, "accuracy/train": 0.0}))
    yield Event(wall_time=1500000002.5, step=300, summary=scalars(learning_rate=-1e-7))


def write_golden():
    buffer = io.BytesIO()
    buffer.close = lambda: None
    writer = RecordWriter(buffer)
    for event in known_events():
        writer.write(event.SerializeToString())
    writer.flush()
    golden = Path(__file__).with_suffix(".json")
    golden.write_text(json.dumps({"hex": buffer.getvalue().hex()}) + "\n")


def expected(history):
    series = {}
    for epoch in history:
        figures = {"learning_rate": epoch["learning_rate"]}
        for part in ("train", "valid"):
            for figure, value in (epoch[part] or {}).items():
                figures[f"{figure}/{part}"] = value
        for tag, value in figures.items():
            series.setdefault(tag, []).append((epoch["epoch"], value))
    return series


def compare(run):
    events = EventAccumulator(str(run)).Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    wanted = expected(json.loads((run / "history.json").read_text()))
    assert found.keys() == wanted.keys(), (found.keys(), wanted.keys())
    for tag, points in wanted.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points], tag
        for (_, value), (_, want) in zip(found[tag], points):
            assert abs(value - want) <= 1e-6 * abs(want), (tag, value, want)
    print(f"{len(found)} series of {len(points)} epochs: every value read back")


if len(sys.argv) > 1:
    compare(Path(sys.argv[1]))
else:
    write_golden()
