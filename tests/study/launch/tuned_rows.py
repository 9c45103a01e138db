"""A study whose rows are tuned, and a trainer that makes up its runs."""

import json

from metaloss.study.spec.spec import Row, Study

LOW, HIGH = ("inner.lr=0.01",), ("inner.lr=0.5",)
CE = Row(name="CE", overrides=("schedule=static", "loss=cross_entropy"), tune=(LOW, HIGH))


GCE = Row(name="GCE", overrides=("schedule=static", "loss=gce"), tuned_as="CE")


PLAIN = Row(name="plain", overrides=("schedule=static", "loss=focal"))


STUDY = Study(
    rows=(CE, GCE, PLAIN),
    seeds=(0, 1),
    common=("task=digits", "steps=200"),
    reference="CE",
    tuning_seeds=(100, 101),
)


class FakeTrainer:
    """Writes runs whose metrics come from a function of the folder, relative to ``out``."""

    def __init__(self, runs, out, metrics):
        self.runs, self.out, self.metrics, self.calls = runs, out, metrics, []

    def __call__(self, overrides, folder, *, resume):
        words = dict(word.split("=", 1) for word in overrides)
        count = int(words.pop("seeds", 1))
        for seed in range(int(words["seed"]), int(words["seed"]) + count):
            words["seed"] = str(seed)
            place = folder / f"seed{seed}" if count > 1 else folder
            self.write(place, [f"{key}={value}" for key, value in words.items()])
        self.calls.append((folder.relative_to(self.out).as_posix(), count))
        return "ok"

    def write(self, folder, words):
        self.runs.write_run(folder, words)
        path = folder / "summary.json"
        summary = json.loads(path.read_text())
        summary |= self.metrics(folder.relative_to(self.out).as_posix())
        path.write_text(json.dumps(summary))


def metrics(valid, test=0.2, status="ok", goal="min"):
    return {
        "metrics": {"valid/error": valid, "test/error": test},
        "status": status,
        "goal": goal,
    }


def better_low_on_clean(folder):
    """Where the labels are right the first setting is better by validation, elsewhere the second.

    By the test metric it is the other way round.
    """
    if "tuning/" not in folder:
        return metrics(0.3)
    good = ("/0/" in folder) == folder.startswith("clean")
    return metrics(0.1, test=0.9) if good else metrics(0.2, test=0.05)
