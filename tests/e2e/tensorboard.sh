#!/usr/bin/env bash
# TensorBoard itself reads the event files of a run, and finds the numbers of metrics.jsonl in them.
# pip: tensorboard
set -euo pipefail
"$RINGTAPE" train --out run --steps 30 --set data.path=digits --set model.kind=mlp --set model.dim=16 --set model.layers=1 \
    --set eval_every=10 --set schedule.warmup_steps=2 --quiet
"$PYTHON" - <<'PY'
import json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

lines = [json.loads(line) for line in open("run/metrics.jsonl")]
events = EventAccumulator("run/tensorboard")
events.Reload()
for tag, key in [("loss/train", "loss"), ("loss/held_out", "val_loss"), ("optimizer/lr", "lr"), ("optimizer/grad_norm", "grad_norm")]:
    want = [(m["step"], m[key]) for m in lines if m.get(key) is not None]
    have = [(e.step, e.value) for e in events.Scalars(tag)]
    assert [s for s, _ in want] == [s for s, _ in have], (tag, want, have)
    assert all(abs(a - b) <= 1e-6 * max(1, abs(a)) for (_, a), (_, b) in zip(want, have)), (tag, want, have)
    print(f"{tag}: {len(have)} values agree")
PY
