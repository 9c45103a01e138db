"""When steps are compiled, and what cannot be."""

import pytest
import torch
from torch import nn

from metaloss.config import Compile
from metaloss.core.compilation.policy import WORTH_SECONDS, _no_compiler, expected_seconds
from metaloss.errors import MetalossError

from ..small_setups import net, setup


def test_short_runs_are_not_compiled_and_long_ones_are():
    assert setup("schedule=online").config.compile is Compile.off
    assert setup("schedule=online", "steps=1000000").config.compile is Compile.on
    assert setup("schedule=online", "steps=1000000", "compile=off").config.compile is Compile.off
    words = ("schedule=online", "steps=1000000", "meta_optimizer=higher")
    assert setup(*words).config.compile is Compile.off


def test_a_run_is_as_long_as_its_arithmetic_where_that_is_more():
    online, static = (setup(f"schedule={name}") for name in ("online", "static"))
    assert expected_seconds(10, 0.0, online.schedule) == pytest.approx(0.08)
    assert expected_seconds(10, 0.0, static.schedule) == pytest.approx(0.01)
    # 9 passes of 6e9 operations at 6e10 a second, 3 of them without a moving loss.
    assert expected_seconds(10, 6e9, online.schedule) == pytest.approx(9.0)
    assert expected_seconds(10, 6e9, static.schedule) == pytest.approx(3.0)
    # A GPU does a thousand times as much, and launches as slowly.
    assert expected_seconds(10, 0.0, online.schedule, "cuda") == pytest.approx(0.2)
    assert expected_seconds(10, 2e12, static.schedule, "cuda") == pytest.approx(3.0)
    assert WORTH_SECONDS > 100  # what compiling itself can take


def test_a_run_is_as_long_as_what_its_schedule_plans():
    offline = setup("schedule=offline", "schedule.offline_steps=4", "schedule.unroll=5")
    assert expected_seconds(10, 0.0, offline.schedule) == pytest.approx(20 * 0.008 + 10 * 0.001)
    seldom = setup("schedule=online", "schedule.period=5")
    assert expected_seconds(10, 0.0, seldom.schedule) == pytest.approx(2 * 0.008 + 8 * 0.001)
    frozen = setup("schedule=online", "schedule.freeze_after=0.3")
    assert expected_seconds(10, 0.0, frozen.schedule) == pytest.approx(3 * 0.008 + 7 * 0.001)


def test_seeds_that_go_together_are_as_long_as_their_arithmetic():
    """20,000 steps of 9 x 0.016 GFLOP: 48 s alone, in at least 160 s; 480 s for ten together."""
    wide = nn.Sequential(
        nn.Linear(4, 1000), nn.Tanh(), nn.Linear(1000, 1000), nn.Tanh(), nn.Linear(1000, 3)
    )
    alone, ten = (
        setup("schedule=online", "steps=20000", f"seeds={n}", model=wide).config for n in (1, 10)
    )
    assert (alone.compile, ten.compile) == (Compile.off, Compile.on)


class Jitter(nn.Module):
    def forward(self, x):
        return x + 0.01 * torch.randn_like(x)


class Branching(nn.Module):
    def forward(self, x):
        return -x if x.sum() > 0 else x


class Outside(nn.Module):
    def forward(self, x):
        return x + torch.from_numpy(x.detach().numpy().copy())


class Picking(nn.Module):
    def forward(self, x):
        return x - x[x > 0].mean()


@pytest.mark.parametrize("asked", ["on", "trace"])
@pytest.mark.parametrize(
    ("words", "model", "message"),
    [
        (("meta_optimizer=higher",), None, "only the engines mixed and finite_difference"),
        ((), net(Jitter()), r"the model draws random numbers outside of nn\.Dropout"),
        (
            (),
            net(Branching()),
            ".*depends on values while it is traced, in aten._local_scalar_dense",
        ),
        (("schedule=static",), net(Outside()), ".*depends on values while it is traced, in "),
        ((), net(Picking()), ".*depends on values while it is traced, in aten.nonzero"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_its_reason(words, model, message, asked):
    with pytest.raises(MetalossError, match=f"compile={asked}: {message}.*: use compile=off"):
        setup("schedule=online", f"compile={asked}", *words, model=model)


def test_what_cannot_be_compiled_is_eager_if_nobody_asked(caplog):
    words = ("schedule=online", f"steps={int(WORTH_SECONDS / 8e-3) + 1}", "compile=auto")
    caplog.set_level("WARNING", "metaloss")
    assert setup(*words, model=net()).config.compile is Compile.on
    assert not caplog.records
    assert setup(*words, model=net(Branching())).config.compile is Compile.off
    (warning,) = caplog.messages
    assert warning.startswith("compile=auto: this long run is not compiled: ")
    assert "depends on values while it is traced, in aten._local_scalar_dense" in warning


def test_a_machine_without_a_compiler_runs_eagerly_and_says_why(monkeypatch, caplog):
    def missing(*_):
        raise RuntimeError("No working C++ compiler found\nand many lines more")

    monkeypatch.setattr(torch._inductor, "compile", missing)
    caplog.set_level("WARNING", "metaloss")
    long = ("schedule=online", f"steps={int(WORTH_SECONDS / 8e-3) + 1}")
    _no_compiler.cache_clear()
    assert setup(*long, "compile=auto").config.compile is Compile.off
    assert "does not work here (No working C++ compiler found)" in caplog.text
    assert setup(*long, "compile=trace").config.compile is Compile.trace
    with pytest.raises(MetalossError, match=r"compile=on: PyTorch's compiler .*: use compile=off"):
        setup(*long, "compile=on")
    _no_compiler.cache_clear()
