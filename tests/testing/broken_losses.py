"""Losses that each break one rule."""

from dataclasses import dataclass, field

import torch
from torch import nn

from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.losses.targets import readable
from metaloss.testing import LossChecks

from .specimens import WrongTanh, specimen


@specimen(LossChecks, "test_options_are_typed_and_explained", "is not frozen")
class Thawed(MLPLoss):
    @dataclass(kw_only=True)
    class Config:
        width: int = 3


@specimen(LossChecks, "test_options_are_typed_and_explained", "has no help")
class Unexplained(MLPLoss):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int = 3


@specimen(LossChecks, "test_options_are_typed_and_explained", "is not keyword-only")
class Positional(MLPLoss):
    @dataclass(frozen=True)
    class Config:
        width: int = field(default=3, metadata={"help": "so wide"})


@specimen(LossChecks, "test_options_are_typed_and_explained", "Config")
class Untypable(MLPLoss):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: set[int] = field(default_factory=set, metadata={"help": "so wide"})


class Broken(MLPLoss):
    """Small, and sound as it stands."""

    def __init__(self):
        super().__init__(MLPLossConfig(hidden=[4]))


@specimen(LossChecks, "test_the_value_is_a_scalar_of_the_outputs_type", "shape")
class Unreduced(Broken):
    def forward(self, prediction, target, weight=None):
        return super().forward(prediction, target, weight).expand(1)


@specimen(LossChecks, "test_it_sees_what_it_says", "'memory' of a row has no effect")
class Overlooks(Broken):
    def __init__(self):
        super().__init__()
        self.sees = frozenset({"memory"})


@specimen(LossChecks, "test_further_dimensions_count_as_rows", "(B, C, *) against rows")
class SumsPixels(Broken):
    def per_output(self, logits, target):
        return super().per_output(logits, target) * logits.shape[2:].numel()


@specimen(LossChecks, "test_class_indices_equal_one_hot_targets", "index against one-hot")
class OffByOne(Broken):
    def forward(self, prediction, target, weight=None):
        if not target.is_floating_point():
            target = (target + 1) % prediction.shape[1]
        return super().forward(prediction, target, weight)


@specimen(LossChecks, "test_soft_targets_matter", "rounded")
class Rounding(Broken):
    def pointwise(self, prediction, target):
        return super().pointwise(prediction, target.round())


@specimen(LossChecks, "test_ignored_rows_do_not_count", "ignored")
class IgnoresNothing(Broken):
    def forward(self, prediction, target, weight=None):
        if not target.is_floating_point():
            target = target.clamp(min=0)
        return super().forward(prediction, target, weight)


@specimen(LossChecks, "test_targets_out_of_range_are_refused", "a target of 255 is accepted")
class TakesAnyClass(Broken):
    def forward(self, prediction, target, weight=None):
        if not target.is_floating_point():
            classes = torch.arange(prediction.shape[1])
            target = (target.unsqueeze(1) == classes).to(prediction.dtype)
        return super().forward(prediction, target, weight)


@specimen(LossChecks, "test_targets_out_of_range_are_refused", "has a finite gradient under vmap")
class LooksOnlyWhereItCan(Broken):
    def forward(self, prediction, target, weight=None):
        if not target.is_floating_point() and not readable(target):
            target = target.clamp(0, prediction.shape[1] - 1)
        return super().forward(prediction, target, weight)


@specimen(
    LossChecks,
    "test_mixed_types_are_computed_in_the_more_precise_one",
    "outputs in torch.bfloat16 give torch.bfloat16",
)
class ComputesInHalf(Broken):
    def forward(self, prediction, target, weight=None):
        return super().forward(prediction, target, weight).to(prediction.dtype)


@specimen(LossChecks, "test_weights_average_the_rows", "weighted")
class IgnoresWeights(Broken):
    def forward(self, prediction, target, weight=None):
        return super().forward(prediction, target)


@specimen(LossChecks, "test_the_order_of_rows_does_not_matter", "permuted rows")
class FirstRowFirst(Broken):
    def per_output(self, logits, target):
        place = 1 + torch.arange(len(logits)).reshape(-1, *[1] * (logits.dim() - 1))
        return super().per_output(logits, target) * place


@specimen(LossChecks, "test_calls_change_nothing", "torch's global random state")
class Noisy(Broken):
    def pointwise(self, prediction, target):
        return super().pointwise(prediction, target) + 0 * torch.rand(())


@specimen(LossChecks, "test_an_export_comes_back_equal", "is not registered")
class Unknown(Broken):
    pass


@specimen(LossChecks, "test_an_export_comes_back_equal", "loaded as MLPLoss")
class Usurper(Broken):
    family = "mlp"


@specimen(LossChecks, "test_values_and_slopes_are_finite_at_extreme_outputs", "at ±10,000")
class NakedLog(Broken):
    def pointwise(self, prediction, target):
        return super().pointwise(prediction, target) - target * prediction.log()


@specimen(LossChecks, "test_first_derivatives_equal_differences", "Jacobian")
class WrongBackward(Broken):
    def pointwise(self, prediction, target):
        return WrongTanh.apply(super().pointwise(prediction, target))


@specimen(LossChecks, "test_first_derivatives_equal_differences", "has no gradient")
class Flat(Broken):
    def pointwise(self, prediction, target):
        return super().pointwise(prediction.detach(), target) + 0 * prediction


class _DetachedTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.y = x.detach().tanh()
        return x.tanh()

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 - ctx.y**2)


@specimen(LossChecks, "test_second_derivatives_equal_differences", "Jacobian")
class FlatSecond(Broken):
    def pointwise(self, prediction, target):
        return _DetachedTanh.apply(super().pointwise(prediction, target))


@specimen(LossChecks, "test_forward_mode_equals_reverse_mode", "")
class NoForwardMode(Broken):
    def pointwise(self, prediction, target):
        return WrongTanh.apply(super().pointwise(prediction, target))


@specimen(LossChecks, "test_vmap_over_batches_equals_a_loop", "vmap")
class Branching(Broken):
    def pointwise(self, prediction, target):
        values = super().pointwise(prediction, target)
        return values if values.sum() > 0 else 2 * values


@specimen(LossChecks, "test_vmap_over_a_population_equals_a_loop", "")
class Peeking(Broken):
    def pointwise(self, prediction, target):
        return super().pointwise(prediction, target) * self.layers[0].bias[0].item()


@specimen(LossChecks, "test_every_parameter_has_an_effect", "2 of 2 numbers in 'offset'")
class Offset(Broken):
    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(2))

    def pointwise(self, prediction, target):
        return super().pointwise(prediction, target) + self.offset.sum()
