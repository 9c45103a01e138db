"""The contract of a loss: shapes, targets, weights, purity, export."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import pad

from metaloss.errors import MetalossError
from metaloss.losses.export import DESCRIPTION, WEIGHTS, family_of, load_loss, pack
from metaloss.testing.base import (
    draws,
    nothing_changes,
    require,
    require_close,
    require_finite,
)
from metaloss.testing.loss_derivatives import LossDerivativeChecks
from metaloss.types import Link


class LossChecks(LossDerivativeChecks):
    """Checks of a loss; ``make`` returns it.

    Checks of class indices need the softmax link and pass with others. For the check of its export,
    the loss must be registered, by an entry point or by ``metaloss.register``.

    Example:
        >>> from metaloss.losses import MLPLoss
        >>> class TestMLP(LossChecks):
        ...     def make(self):
        ...         return MLPLoss(link="softmax")
        >>> TestMLP().test_weights_average_the_rows()
    """

    def test_the_value_is_a_scalar_of_the_outputs_type(self) -> None:
        """Outputs (B, C) and (B, C, *) in single and double precision give a finite 0-d tensor."""
        for dtype in (torch.float32, torch.float64):
            loss = self.made().to(dtype)
            for shape in ((4, 3), (2, 3, 5), (2, 3, 2, 4)):
                outputs, target = self.rows(shape, dtype=dtype)
                value = loss(outputs, target)
                require(value.shape == (), f"outputs {shape} give shape {tuple(value.shape)}")
                require(value.dtype == dtype, f"outputs in {dtype} give a value in {value.dtype}")
                require_finite(value, f"outputs {shape} in {dtype}")

    def test_mixed_types_are_computed_in_the_more_precise_one(self) -> None:
        """Half precision becomes single; double outputs or a double φ give a double value."""
        outputs, target = self.rows((4, 3))
        double = self.made().float().double()
        expected = double(outputs, target)
        found = self.made().float()(outputs, target)
        require(found.dtype == torch.float64, f"double outputs give a value in {found.dtype}")
        require_close(found, expected, "double outputs and a φ in single precision")
        for dtype in (torch.bfloat16, torch.float16):
            single, half = self.made().float(), outputs.to(dtype)
            found = single(half, target)
            require(found.dtype == torch.float32, f"outputs in {dtype} give {found.dtype}")
            aim = single(half.float(), target)
            require_close(found, aim, f"outputs in {dtype}", rtol=0, atol=0)

    def test_further_dimensions_count_as_rows(self) -> None:
        """(B, C, D, E) is the same as (B·D·E, C)."""
        loss = self.made().double()
        outputs, target = self.rows((3, 4, 2, 5))
        count = outputs.shape[1]
        flat = outputs.movedim(1, -1).reshape(-1, count)
        classes = loss.link is Link.softmax
        flat_target = target.flatten() if classes else target.movedim(1, -1).reshape(-1, count)
        require_close(loss(outputs, target), loss(flat, flat_target), "(B, C, *) against rows")

    def test_class_indices_equal_one_hot_targets(self) -> None:
        """A class index gives the same value as its one-hot vector."""
        loss = self.made().double()
        if loss.link is not Link.softmax:
            return
        outputs, target = self.rows((6, 4))
        one_hot = (target[:, None] == torch.arange(outputs.shape[1])).to(outputs.dtype)
        require_close(loss(outputs, target), loss(outputs, one_hot), "index against one-hot")

    def test_soft_targets_matter(self) -> None:
        """Probabilities are not rounded to a class."""
        loss = self.made().double()
        if loss.link is Link.identity:
            return
        outputs, _ = self.rows((5, 4))
        first, second = (
            torch.rand(outputs.shape, generator=draws(k), dtype=outputs.dtype) for k in (1, 2)
        )
        if loss.link is Link.softmax:
            first, second = (soft / soft.sum(1, keepdim=True) for soft in (first, second))
        mild = loss(outputs, first + 0.01 * (second - first))
        require_finite(mild, "soft targets")
        require(not torch.equal(loss(outputs, first), mild), "soft targets are rounded")

    def test_ignored_rows_do_not_count(self) -> None:
        """Rows with ``ignore_index`` change nothing; a batch of them has loss and gradient 0."""
        loss = self.made().double()
        if loss.link is not Link.softmax:
            return
        outputs, target = self.rows((6, 4))
        some = target.clone()
        some[[1, 4]] = loss.ignore_index
        kept = [0, 2, 3, 5]
        require_close(loss(outputs, some), loss(outputs[kept], target[kept]), "two rows ignored")
        outputs.requires_grad_()
        value = loss(outputs, torch.full_like(target, loss.ignore_index))
        require_close(value, torch.zeros_like(value), "all rows ignored")
        (slope,) = torch.autograd.grad(value, outputs)
        require_close(slope, torch.zeros_like(slope), "all rows ignored: the gradient")

    def test_targets_out_of_range_are_refused(self) -> None:
        """A class index or soft target out of range raises an error.

        Under ``vmap``, where values cannot be read, the gradient is NaN instead, so that the guard
        refuses the step.
        """
        loss = self.made().double()
        if loss.link is Link.identity:
            return
        outputs, right = self.rows((6, 4))
        for value in (255, -1) if loss.link is Link.softmax else (-0.5, 1.5, math.nan):
            wrong = right.clone()
            wrong.view(-1)[2] = value
            try:
                loss(outputs, wrong)
            except MetalossError:
                pass
            else:
                raise AssertionError(f"a target of {value} is accepted")
            both = torch.stack((right, wrong))
            slopes = vmap(grad(lambda z, y: loss(z, y)), in_dims=(None, 0))(outputs, both)
            require_finite(slopes[0], "the gradient for valid targets under vmap")
            require(
                slopes[1].isnan().any(), f"a target of {value} has a finite gradient under vmap"
            )

    def test_weights_average_the_rows(self) -> None:
        """With weights the loss is the weighted mean of the rows' losses, else their mean."""
        loss = self.made().double()
        outputs, target = self.rows((5, 3))
        weight = torch.tensor([1.0, 0.0, 2.5, 0.25, 3.0], dtype=outputs.dtype)
        single = torch.stack([loss(outputs[i : i + 1], target[i : i + 1]) for i in range(5)])
        require(single.std() > 0, "every row has the same loss")
        expected = (weight * single).sum() / weight.sum()
        require_close(loss(outputs, target, weight), expected, "weighted")
        require_close(loss(outputs, target), single.mean(), "unweighted: the mean of the rows")

    def test_the_order_of_rows_does_not_matter(self) -> None:
        """A permuted batch has the same loss."""
        loss = self.made().double()
        outputs, target = self.rows((6, 4))
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        require_close(loss(outputs[order], target[order]), loss(outputs, target), "permuted rows")

    def test_calls_change_nothing(self) -> None:
        """A second call gives the same value; arguments and global state do not change."""
        loss = self.made().double()
        outputs, target = self.rows((5, 3))
        with nothing_changes("the loss", outputs, target, loss):
            first, second = loss(outputs, target), loss(outputs, target)
        require_close(first, second, "a second call", rtol=0, atol=0)

    def test_an_export_comes_back_equal(self) -> None:
        """A loss that is exported and loaded has the same φ, options and values."""
        loss = self.made()
        loss.family = family_of(loss)
        require(
            loss.family is not None,
            f"{type(loss).__name__} is not registered: add it to 'metaloss.losses' in "
            "pyproject.toml and install your package, or use metaloss.register",
        )
        with torch.no_grad():
            for number, value in enumerate(loss.parameters()):
                value += 0.01 * torch.randn(value.shape, generator=draws(number))
        phi = {name: value.detach() for name, value in loss.named_parameters()}
        with TemporaryDirectory() as folder:
            weights, description = pack(loss, phi, {})
            (Path(folder) / WEIGHTS).write_bytes(weights)
            (Path(folder) / DESCRIPTION).write_bytes(description)
            back = load_loss(folder)
        require(type(back) is type(loss), f"loaded as {type(back).__name__}")
        require(back.config == loss.config, "the options are not the same after loading")
        outputs, target = self.rows((5, 3), dtype=torch.float32)
        require_close(dict(back.named_parameters()), dict(loss.named_parameters()), "φ", rtol=0)
        require_close(back(outputs, target), loss(outputs, target), "the value", rtol=0, atol=0)

    def test_values_and_slopes_are_finite_at_extreme_outputs(self) -> None:
        """Value, gradient and meta-gradient are finite at outputs of ±10,000, in float32."""
        loss = self.made().float()
        rows = torch.tensor([[1.0, -1, -1], [-1, 1, 1], [1, 1, 1], [-1, -1, -1], [0, 1, -1]])
        rows = pad(rows, (0, max(loss.classes - 3, 0)), value=-1.0)
        outputs = (1e4 * rows).requires_grad_()
        target: Tensor = torch.tensor([0, 0, 1, 2, 1])
        if loss.link is not Link.softmax:
            target = (rows.roll(1, 1) > 0).float()
        value = loss(outputs, target)
        require_finite(value, "the value at ±10,000")
        slopes = torch.autograd.grad(
            value, [outputs, *loss.parameters()], create_graph=True, materialize_grads=True
        )
        require_finite(slopes, "the gradient at ±10,000")
        phi = list(loss.parameters())
        if phi and slopes[0].requires_grad:
            push = torch.ones_like(outputs) / math.sqrt(outputs.numel())
            mixed = torch.autograd.grad((slopes[0] * push).sum(), phi, materialize_grads=True)
            require_finite(mixed, "the meta-gradient at ±10,000")
