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


def on_a_cpu():
    """Return the numbers of each line of the first table: ÷ plain and ÷ library, two of each."""
    rows = [line.strip("| ").split("|") for line in FIRST.splitlines() if line.count(" ×") == 4]
    return {
        row[0].strip(): [number for cell in row[1:] for number in numbers(cell)] for row in rows
    }


def test_steps_on_a_cpu():
    steps = [
        [row for row in lines(page("cpu"), name) if row[-1].endswith("×")]
        for name in ("online, compiled", "online, compiled, a quarter of the rows")
    ]
    stated = on_a_cpu()
    names = ("ResNet-18", "GroupNorm", "LeNet-5", "MLP", "transformer")
    assert len(stated) == len(names)
    for name, (title, found), *rows in zip(names, stated.items(), *steps, strict=True):
        assert name in title
        assert found == [numbers(row[place])[0] for place in (3, 4) for row in rows]


def test_the_readme_says_what_a_step_costs():
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    for place, said in ((0, "costs {} plain steps on a CPU"), (1, "a quarter of the rows {}")):
        ratios = [row[place] for row in on_a_cpu().values()]
        assert said.format(f"{min(ratios):.1f} to {max(ratios):.1f}") in readme


def test_steps_on_a_gpu():
    lenet, _, bf16 = lines(page("gpu"), "online, compiled")[:3]
    first = [line for line in FIRST.splitlines() if line.count(" ×") == 3]
    assert [[numbers(cell)[0] for cell in line.strip("| ").split("|")[1:]] for line in first] == [
        [numbers(cell)[0] for cell in row[-3:]] for row in (lenet, bf16)
    ]


def test_reached_aims_are_counted():
    """A line is reached where a number of it is bold."""
    cpu, gpu = page("aims").split("## On a GPU")
    cpu, _ = cpu.split("### Why")
    counts = []
    for text in (cpu, gpu):
        rows = [line for line in text.splitlines() if re.match(r"\| [^|]*[^| ]", line)]
        counts += [sum("**" in row for row in rows), len(rows)]
    said = re.search(r"(\d+) of (\d+) are reached, on the GPU (\d+) of (\d+)", FIRST)
    assert [int(number) for number in said.groups()] == counts
