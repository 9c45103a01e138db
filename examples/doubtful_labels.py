"""From a table with doubtful labels to a model, predictions, suspect rows and a report.

The table is made here: 3,000 customers with numbers, categories, dates and gaps, in three classes
of unequal size. 30 % of the labels are wrong. 150 other rows were checked by hand. Then five
commands do the rest. Run it, and give a new folder if you want to keep the files:

    python examples/doubtful_labels.py my_folder
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

CLASSES = np.array(["stays", "pauses", "leaves"])
COMMANDS = """
metaloss train task=csv task.path=train.csv task.target=status task.trusted=checked.csv
    task.test=test.csv schedule=online steps=2000 inner=adam inner.lr=0.001 tracker=[] output=run
metaloss evaluate run --metrics error,f1_macro,balanced_accuracy
metaloss predict run new.csv --out predictions.csv
metaloss suspects run --out suspects.csv
metaloss report run
"""


def customers(count, draw):
    """Return ``count`` rows and their true classes."""
    age, spent = draw.integers(18, 90, count), draw.lognormal(4, 0.8, count)
    days, calls = draw.integers(0, 1500, count), draw.poisson(2, count)
    plan = draw.choice(["basic", "family", "business"], count, p=[0.5, 0.3, 0.2])
    city = draw.choice(["Bergen", "Lyon", "Porto", "Ghent", "Turin"], count)
    worth = np.log(spent) - 4 + 0.9 * (plan == "business") + days / 1500
    trouble = 0.6 * calls - 1.2 + 0.8 * (plan == "basic") - 0.02 * (age - 50)
    noise = draw.normal(0, 0.25, count)
    kind = np.where(trouble - worth + noise > 1.8, 2, np.where(trouble - worth + noise > 0.8, 1, 0))
    table = pd.DataFrame(
        {
            "age": age.astype(float),
            "plan": plan,
            "spent": spent.round(2),
            "city": city,
            "since": pd.Timestamp("2021-01-01") + pd.to_timedelta(1500 - days, unit="D"),
            "calls": calls.astype(float),
        }
    )
    for column, share in (("age", 0.05), ("plan", 0.03), ("spent", 0.02)):
        table.loc[draw.random(count) < share, column] = None
    return table, kind


def write_files(folder):
    """Write the four tables; return which labels of ``train.csv`` are wrong."""
    draw = np.random.default_rng(0)
    for name, count in (("train", 3000), ("checked", 150), ("test", 1000), ("new", 500)):
        table, kind = customers(count, draw)
        if name == "train":
            wrong = draw.random(count) < 0.3
            given = np.where(wrong, (kind + draw.integers(1, 3, count)) % 3, kind)
            table["status"] = CLASSES[given]
        elif name != "new":
            table["status"] = CLASSES[kind]
        table.to_csv(folder / f"{name}.csv", index=False)
    return wrong


def main(folder=None):
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder or temporary)
        place.mkdir(parents=True, exist_ok=True)
        wrong = write_files(place)
        began = time.perf_counter()
        for command in COMMANDS.replace("\n    ", " ").strip().splitlines():
            print(f"\n$ {command}", flush=True)
            words = command.split()[1:]
            subprocess.run([sys.executable, "-m", "metaloss", *words], cwd=place, check=True)
        suspects = pd.read_csv(place / "suspects.csv")
        first = suspects["line"][: wrong.sum()] - 2  # line 1 has the columns' names
        print(
            f"\n{time.perf_counter() - began:.0f} seconds. Of the {wrong.sum()} most suspect rows"
        )
        print(f"{wrong[first].mean():.0%} have a wrong label; of all rows, {wrong.mean():.0%}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
