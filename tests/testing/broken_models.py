"""Models and trackers that each break one rule."""

from dataclasses import dataclass

import torch
from torch import nn

from metaloss.contracts import Tracker
from metaloss.testing import ModelChecks, TrackerChecks

from .specimens import WrongTanh, specimen


class Plain(nn.Module):
    """Sound as it stands: rows of 8, three outputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x):
        return self.layer(x)


@specimen(ModelChecks, "test_options_are_typed_and_explained", "is not frozen")
class ThawedModel(Plain):
    @dataclass(kw_only=True)
    class Config:
        width: int = 3


@specimen(ModelChecks, "test_outputs_have_the_right_shape", "expected (4, 3, *)")
class Transposed(Plain):
    def forward(self, x):
        return self.layer(x).T


@specimen(ModelChecks, "test_outputs_have_the_right_shape", "outputs in")
class Single(Plain):
    def forward(self, x):
        return self.layer(x).float()


@specimen(ModelChecks, "test_evaluation_is_deterministic_row_by_row", "rows one at a time")
class Centring(Plain):
    def forward(self, x):
        return self.layer(x - x.mean(0)) + x.sum(1, keepdim=True)


@specimen(ModelChecks, "test_evaluation_is_deterministic_row_by_row", "in place")
class Counter(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


@specimen(ModelChecks, "test_as_a_function_it_is_the_same_model", "as a function")
class Cached(Plain):
    def __init__(self):
        super().__init__()
        self.cache = [self.layer.weight]

    def forward(self, x):
        return self.layer(x) + x @ self.cache[0].T


@specimen(ModelChecks, "test_forward_mode_equals_reverse_mode", "")
class NoForward(Plain):
    def forward(self, x):
        return WrongTanh.apply(self.layer(x))


@specimen(ModelChecks, "test_weights_can_be_drawn_anew", "no reset_parameters()")
class NoReset(Plain):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.scale * self.layer(x)


@specimen(ModelChecks, "test_the_constructor_draws_from_torch_alone", "another seed")
class Constant(Plain):
    def __init__(self):
        super().__init__()
        nn.init.constant_(self.layer.weight, 0.1)
        nn.init.zeros_(self.layer.bias)


@dataclass(frozen=True, kw_only=True)
class Listener(Tracker):
    """Sound as it stands."""

    def handle(self, event):
        pass


@specimen(TrackerChecks, "test_every_event_is_taken_in_order", "cannot convert float NaN")
class Rounded(Listener):
    def handle(self, event):
        for number in getattr(event, "numbers", {}).values():
            int(number)


@specimen(TrackerChecks, "test_a_resumed_run_is_taken", "from the start only")
class FromTheStart(Listener):
    def handle(self, event):
        if getattr(event, "resumed_from", None):
            raise RuntimeError("from the start only")


@specimen(TrackerChecks, "test_a_run_that_breaks_off_is_closed", "never started")
class Impatient(Listener):
    def close(self):
        raise RuntimeError("never started")
