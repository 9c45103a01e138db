"""What the tests of tables share."""

import csv

import pytest


@pytest.fixture
def write(tmp_path):
    """Return a function that writes rows into a file and returns its path."""

    def write(rows, name="people.csv", **how):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), **how)
            writer.writeheader()
            writer.writerows(rows)
        return str(path)

    return write
