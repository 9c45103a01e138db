"""The contract of an engine: the right meta-gradient, and no side effects."""

from __future__ import annotations

from dataclasses import replace

import torch

from metaloss.errors import UnsupportedError
from metaloss.meta_optimizers.engine import Engine
from metaloss.testing.base import (
    Checks,
    nothing_changes,
    require,
    require_close,
    tensors_in,
)
from metaloss.testing.tiny_problems import WithIdle, once_differentiable, tiny_problems
from metaloss.types import MetaPoint


class MetaOptimizerChecks(Checks):
    """Checks of an engine; ``make`` returns it.

    The problems are tiny and in float64: a network with dropout and batch normalisation, a learned
    loss with a dozen parameters, two inner optimizers, unrolls of one and three steps.

    Example:
        >>> from metaloss.meta_optimizers.mixed import Mixed
        >>> class TestMixed(MetaOptimizerChecks):
        ...     def make(self):
        ...         return Mixed()
        >>> TestMixed().test_the_gradient_equals_central_differences()
    """

    def test_the_gradient_equals_central_differences(self) -> None:
        """The meta-gradient equals central differences of the task loss in every number of φ.

        The tolerance is 1e-6 for an engine with ``exact=True``, else 2e-2.
        """
        engine: Engine = self.made()
        for case in tiny_problems():
            expected = case.differences()
            size = max(float(value.abs().max()) for value in expected.values())
            require(size > 1e-6, f"{case.name}: the reference is zero")
            found = engine.meta_gradient(case.problem, case.phi, case.state, case.window).gradient
            tolerance = 1e-6 if engine.exact else 2e-2
            require_close(
                found,
                expected,
                f"{case.name}: against central differences",
                rtol=tolerance,
                atol=tolerance * size,
            )

    def test_earlier_task_losses_are_added(self) -> None:
        """With `Window.points`, the gradients of shorter unrolls are added, by their weights.

        An engine that cannot do it raises UnsupportedError.
        """
        engine = self.made()
        for case in tiny_problems():
            window = case.window
            if len(window.batches) < 2:
                continue
            point = MetaPoint(1, 2.0, window.meta_batch, window.meta_key)
            short = window._replace(batches=window.batches[:1], keys=window.keys[:1])
            given = case.problem, case.phi, case.state
            try:
                found = engine.meta_gradient(*given, window._replace(points=(point,))).gradient
            except UnsupportedError:
                return
            long, early = (engine.meta_gradient(*given, one).gradient for one in (window, short))
            expected = {name: long[name] + 2 * early[name] for name in long}
            tolerance = 1e-6 if engine.exact else 2e-2
            size = tolerance * max(float(value.abs().max()) for value in expected.values())
            message = f"{case.name}: against the sum"
            require_close(found, expected, message, rtol=tolerance, atol=size)

    def test_the_state_is_that_of_plain_steps(self) -> None:
        """θ, buffers, optimizer state and losses are those of plain training steps."""
        engine = self.made()
        for case in tiny_problems():
            result = engine.meta_gradient(case.problem, case.phi, case.state, case.window)
            expected, inner, task = case.plain(case.phi)
            require_close(tuple(result.state), tuple(expected), f"{case.name}: the state")
            require_close(result.losses.inner, inner, f"{case.name}: the learned losses")
            require_close(result.losses.train_task, task, f"{case.name}: the task losses")
            meta_task = case.meta_task(case.phi)
            require_close(result.losses.meta_task, meta_task, f"{case.name}: the task loss")

    def test_nothing_changes(self) -> None:
        """Arguments and global state do not change; a second call gives the same result."""
        engine = self.made()
        for case in tiny_problems():
            arguments = (case.phi, case.state, case.window)
            with nothing_changes("meta_gradient()", *arguments, case.problem.loss):
                first = engine.meta_gradient(case.problem, *arguments)
                again = engine.meta_gradient(case.problem, *arguments)
            require_close(tuple(first), tuple(again), "a second call", rtol=0, atol=0)

    def test_results_are_detached(self) -> None:
        """No result belongs to a graph, so that memory does not grow from step to step."""
        engine = self.made()
        for case in tiny_problems():
            result = engine.meta_gradient(case.problem, case.phi, case.state, case.window)
            require(
                not any(leaf.requires_grad for leaf in tensors_in(tuple(result))),
                f"{case.name}: a tensor of the result is part of a graph",
            )

    def test_a_parameter_without_influence_has_gradient_zero(self) -> None:
        """The gradient of a parameter that the loss does not use is zero, of its shape."""
        engine = self.made()
        case = next(tiny_problems())
        loss = WithIdle(case.problem.loss)
        phi = {f"loss.{name}": value for name, value in case.phi.items()}
        phi["idle"] = torch.ones(2, dtype=torch.float64)
        problem = replace(case.problem, loss=loss)
        found = engine.meta_gradient(problem, phi, case.state, case.window).gradient
        require(found.keys() == phi.keys(), f"names {sorted(found)}, expected {sorted(phi)}")
        require_close(found["idle"], torch.zeros_like(phi["idle"]), "the idle parameter")

    def test_unsupported_models_are_refused(self) -> None:
        """A model without second derivatives raises UnsupportedError or gives the right result."""
        engine = self.made()
        case = next(tiny_problems(model=once_differentiable()))
        try:
            found = engine.meta_gradient(case.problem, case.phi, case.state, case.window).gradient
        except UnsupportedError:
            return
        expected = case.differences()
        size = max(float(value.abs().max()) for value in expected.values())
        message = "a model without second derivatives"
        require_close(found, expected, message, rtol=0, atol=0.02 * size)

    def test_the_meta_step_goes_downhill(self) -> None:
        """The update of φ has a negative inner product with the gradient; arguments stay."""
        engine, case = self.made(), next(tiny_problems())
        require(isinstance(engine, Engine), "an engine must derive from Engine, which updates φ")
        gradient = engine.meta_gradient(case.problem, case.phi, case.state, case.window).gradient
        state = engine.rule_init(case.phi)
        with nothing_changes("rule_step()", case.phi, gradient, state):
            new, _ = engine.rule_step(case.phi, gradient, state, phase="train", total=10)
        down = sum(float(((new[k] - case.phi[k]) * gradient[k]).sum()) for k in gradient)
        require(down < 0, f"the step has inner product {down:.3g} with the gradient")
