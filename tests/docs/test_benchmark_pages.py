"""The first page of the benchmarks says what the tables on the other pages say."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
FIRST = (DOCS / "benchmarks.md").read_text("utf-8")


def page(name):
    return (DOCS / "benchmarks" / f"{name}.md").read_text("utf-8")


def lines(text, begin):
    """Return the cells of each line of a table that begins so."""
    found = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in found]
    return [row for row in cells if row[0] == begin]


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.\d+|\d+", text)]


def test_steps_on_a_cpu():
    cpu = page("cpu")
    alone = [row for row in lines(cpu, "online, compiled") if row[-1].endswith("×")]
    (plain,) = lines(cpu, "online, compiled ÷ plain, compiled")
    (library,) = lines(cpu, "online, compiled ÷ the faster library")
    names = ("ResNet-18", "LeNet-5", "MLP", "transformer")
    first = [line for line in FIRST.splitlines() if line.count("×)") == 2]
    assert len(first) == len(alone) == len(names)
    for index, (name, row, line) in enumerate(zip(names, alone, first, strict=True)):
        assert name in line
        stated = [numbers(cell) for cell in line.strip("| ").split("|")[1:]]
        kept = [numbers(found[1 + index])[1] for found in (plain, library)]
        assert stated == [
            [numbers(row[3])[0], kept[0]],
            [numbers(row[4])[0], kept[1]],
        ]


def test_the_readme_says_what_a_step_costs():
    rows = [line for line in FIRST.splitlines() if line.count("×)") == 2]
    ratios = [numbers(row.strip("| ").split("|")[1])[0] for row in rows]
    said = f"costs {min(ratios):.1f} to {max(ratios):.1f} plain steps on a CPU"
    assert said in (DOCS.parent / "README.md").read_text("utf-8")


def test_steps_on_a_gpu():
    lenet, _, bf16 = lines(page("gpu"), "online, compiled")[:3]
    first = [line for line in FIRST.splitlines() if line.count(" ×") == 3]
    assert [[numbers(cell)[0] for cell in line.strip("| ").split("|")[1:]] for line in first] == [
        [numbers(cell)[0] for cell in row[-3:]] for row in (lenet, bf16)
    ]


def test_reached_aims_are_counted():
    """A line is reached where a number of it is bold."""
    cpu, gpu = page("aims").split("## On a GPU")
    counts = []
    for text in (cpu, gpu):
        rows = [line for line in text.splitlines() if line.startswith("|")][2:]
        counts += [sum("**" in row for row in rows), len(rows)]
    said = re.search(r"(\d+) of (\d+) are reached, on the GPU (\d+) of (\d+)", FIRST)
    assert [int(number) for number in said.groups()] == counts
