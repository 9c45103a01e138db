"""Whether two runs ended the same, bit by bit."""

import json

from metaloss.core.storage.run_folder import read_rows


def ending(folder):
    """Return everything of a run's folder that must not depend on how often it was stopped."""
    summary = json.loads((folder / "summary.json").read_text())
    kept = ("metrics", "metrics_at_best_validation", "guard_events", "status", "steps")
    rows = {
        name: [
            {key: value for key, value in row.items() if not key.startswith("time/")}
            for row in read_rows(folder / name)
            if "warning" not in row  # of a checkpoint that was damaged
        ]
        for name in ("journal.jsonl", "curves.jsonl")
    }
    files = ("model.safetensors", "loss.safetensors", "loss.json", "ledger.safetensors")
    schedule = folder / "loss_schedule.safetensors"  # of online runs and of replays
    return {
        **{name: (folder / name).read_bytes() for name in files},
        "schedule": schedule.read_bytes() if schedule.exists() else None,
        **{name: summary[name] for name in kept},
        **rows,
    }


def assert_same_ending(folder, other):
    found, expected = ending(folder), ending(other)
    assert len(expected["journal.jsonl"]) > 3
    for name, value in expected.items():
        assert found[name] == value, name
