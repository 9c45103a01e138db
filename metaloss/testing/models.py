"""The contract of a model: a module that meta-gradients can differentiate."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import grad

from metaloss.core.parts.weights import reset
from metaloss.inner.forward_mode import jvp
from metaloss.inner.keys import key_tensor
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.model.write_back import write_back
from metaloss.testing.base import Checks, draws, nothing_changes, require, require_close
from metaloss.types import Tensors


class ModelChecks(Checks):
    """Checks of a model; ``make`` returns it.

    Attributes:
        input_shape: The shape of one row that the model is made for.
        outputs: C, the number of outputs that it is made for.
        tokens: Whether rows are int64 tokens below ``outputs``, as for a language model.

    Example:
        >>> class TestMine(ModelChecks):
        ...     input_shape, outputs = (5,), 2
        ...     def make(self):
        ...         return nn.Linear(5, 2)
        >>> TestMine().test_forward_mode_equals_reverse_mode()
    """

    input_shape: tuple[int, ...] = (8,)
    outputs: int = 3
    tokens: bool = False

    def test_options_are_typed_and_explained(self) -> None:
        """As for every part. A module without the attribute ``Config`` has no options."""
        if hasattr(type(self.made()), "Config"):
            super().test_options_are_typed_and_explained()

    def test_outputs_have_the_right_shape(self) -> None:
        """Inputs (B, *input_shape) give (B, C) or (B, C, *), in the type of the weights."""
        for dtype in (torch.float32, torch.float64):
            for train in (False, True):
                model = self.made().to(dtype).train(train)
                found = model(self._inputs(4, dtype))
                fits = found.dim() >= 2 and found.shape[:2] == (4, self.outputs)
                require(fits, f"shape {tuple(found.shape)}, expected (4, {self.outputs}, *)")
                require(found.dtype == dtype, f"weights in {dtype}, outputs in {found.dtype}")
                require(found.requires_grad, "the outputs do not depend on any parameter")

    def test_evaluation_is_deterministic_row_by_row(self) -> None:
        """In evaluation mode, outputs are deterministic and do not depend on other rows."""
        model = self.made().double().eval()
        inputs = self._inputs(4)
        with nothing_changes("evaluation", inputs, model):
            first, again = model(inputs), model(inputs)
            alone = torch.cat([model(inputs[i : i + 1]) for i in range(4)])
        require_close(first, again, "a second call", rtol=0, atol=0)
        require_close(alone, first, "rows one at a time")

    def test_as_a_function_it_is_the_same_model(self) -> None:
        """The model as a function of given weights equals a module that has these weights.

        A model that keeps a second reference to a weight fails, because it would keep using the old
        value.
        """
        model, inputs = self.made().double().eval(), self._inputs(4)
        functional = FunctionalModel(model)
        params, buffers = functional.state(model)
        moved = {name: value + 0.1 for name, value in params.items()}
        key = key_tensor(0, "checks", device="cpu")
        with nothing_changes("the model as a function", model, moved, buffers, inputs):
            found, _ = functional(moved, buffers, inputs, train=False)
            functional(moved, buffers, inputs, key=key)
        other = copy.deepcopy(model)
        write_back(other, moved, {})
        require_close(found, other(inputs), "as a function")

    def test_forward_mode_equals_reverse_mode(self) -> None:
        """Hessian-vector products are the same forward over reverse and reverse over reverse."""
        functional = FunctionalModel(self.made().double().train())
        params, buffers = functional.state()
        inputs, key = self._inputs(5), key_tensor(0, "checks", device="cpu")
        draw = draws(1)
        push = {k: torch.randn(p.shape, generator=draw, dtype=p.dtype) for k, p in params.items()}

        def loss(at: Tensors) -> Tensor:
            outputs, _ = functional(at, buffers, inputs, key=key)
            target = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype)
            return ((outputs - target.view_as(outputs)) ** 2).mean()

        slope, forward = jvp(grad(loss), (params,), (push,))
        require(max(g.abs().max() for g in slope.values()) > 0, "the gradient is zero")
        reverse = grad(lambda at: _inner(grad(loss)(at), push))(params)
        require_close(forward, reverse, "forward over reverse", rtol=1e-6)

    def test_weights_can_be_drawn_anew(self) -> None:
        """``reset_parameters`` draws other weights, and the same ones for the same seed.

        Offline learning needs this. Weights that a constructor does not draw need not change.
        """
        model = self.made(0)
        other, same = (_redrawn(model, seed) for seed in (1, 1))
        require_close(other, same, "the same seed", rtol=0, atol=0)
        before = dict(model.named_parameters())
        moved = any(not torch.equal(value, before[name]) for name, value in other.items())
        require(moved, "reset_parameters draws no other weights")

    def test_the_constructor_draws_from_torch_alone(self) -> None:
        """The weights of a new model depend only on the seed of torch's global generator."""
        first, same, other = (dict(self.made(seed).named_parameters()) for seed in (0, 0, 1))
        require_close(first, same, "the same seed", rtol=0, atol=0)
        differ = any(not torch.equal(value, other[name]) for name, value in first.items())
        require(differ, "another seed gives the same weights")

    def _inputs(self, rows: int, dtype: torch.dtype = torch.float64) -> Tensor:
        shape = (rows, *self.input_shape)
        if self.tokens:
            return torch.randint(self.outputs, shape, generator=draws(2))
        return torch.randn(shape, generator=draws(2), dtype=torch.float64).to(dtype)


def _inner(a: Tensors, b: Tensors) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in b]).sum()


def _redrawn(model: nn.Module, seed: int) -> Tensors:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return {k: p.detach() for k, p in reset(copy.deepcopy(model)).named_parameters()}
