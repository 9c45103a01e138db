"""Memory between two steps: kept by the process, not mapped in anew."""

import os
import platform
import subprocess
import sys

import pytest

from metaloss import allocator
from metaloss.cli.main import main

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own setting")

# 32 MB in blocks of 4 MB, all of them free after every step.
SCRIPT = """
import ctypes, resource, {library} as library
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 4 KB, whatever the system
from metaloss.allocator import keep_freed_memory

def step():
    return sum(library.ones({count})[0] for _ in [library.ones({count}) for _ in range(8)])

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

made = keep_freed_memory()
counts = []
for _ in range(10):
    before = faults()
    step()
    counts.append(faults() - before)
print(made, min(counts))  # the heap may still grow by a block after the first steps
"""


def faults(library, count, **variables):
    """Return what the setting answered, and the fewest pages that a step maps in."""
    clean = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(library=library, count=count)],
        capture_output=True, text=True, check=True, env=clean | variables,
    )  # fmt: skip
    made, pages = done.stdout.split()
    return made, int(pages)


@pytest.mark.slow
def test_a_step_maps_nothing_in_that_the_last_one_freed():
    made, pages = faults("torch", 1 << 20)
    assert made == "True"
    assert pages < 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "variable",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    ],
)
def test_a_choice_of_the_environment_stays_in_force(variable):
    made, pages = faults("numpy", 1 << 19, **variable)  # imported in a tenth of the time
    assert made == "False"
    assert pages > 1000


def test_an_allocator_that_knows_no_such_setting_is_left_alone(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name in allocator._OWN_CHOICE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.keep_freed_memory() is False
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    monkeypatch.setattr(allocator.sys, "platform", "win32")
    assert allocator.keep_freed_memory() is False


def test_train_makes_the_setting(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: calls.append(1))
    assert main(["train", "--cfg"]) == 0
    assert calls == [1]
