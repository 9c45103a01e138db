"""Inner and meta-optimizers that each break one rule."""

import torch

from metaloss.inner import SGD
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.testing import InnerOptimizerChecks, MetaOptimizerChecks
from metaloss.types import MetaGradient, StepLosses

from .specimens import WrongTanh, specimen


@specimen(InnerOptimizerChecks, "test_the_update_changes_no_argument", "in place")
class InPlace(SGD):
    def update(self, grads, state, params):
        params["bias"].sub_(grads["bias"])
        return super().update(grads, state, params)


@specimen(InnerOptimizerChecks, "test_the_state_keeps_its_form", "structure changes")
class LateState(SGD):
    def update(self, grads, state, params):
        new, after = super().update(grads, state, params)
        return new, {**after, "last": grads}


@specimen(InnerOptimizerChecks, "test_the_state_keeps_its_form", "come back in")
class Widening(SGD):
    def update(self, grads, state, params):
        new, state = super().update(grads, state, params)
        return {name: value.double() for name, value in new.items()}, state


@specimen(InnerOptimizerChecks, "test_the_update_goes_downhill", "goes from")
class Uphill(SGD):
    def update(self, grads, state, params):
        return super().update({name: -g for name, g in grads.items()}, state, params)


@specimen(InnerOptimizerChecks, "test_derivatives_equal_differences", "Jacobian")
class Detached(SGD):
    def update(self, grads, state, params):
        return super().update({name: g.detach() for name, g in grads.items()}, state, params)


@specimen(InnerOptimizerChecks, "test_forward_mode_equals_reverse_mode", "")
class ReverseOnly(SGD):
    def update(self, grads, state, params):
        return super().update({k: WrongTanh.apply(g) for k, g in grads.items()}, state, params)


@specimen(InnerOptimizerChecks, "test_a_gradient_that_is_always_zero_is_harmless", "NaN")
class NakedRoot(SGD):
    def update(self, grads, state, params):
        scaled = {name: g / ((g * g).sqrt() + 1e-8) for name, g in grads.items()}
        return super().update(scaled, state, params)


@specimen(InnerOptimizerChecks, "test_vmap_equals_a_loop", "")
class Syncing(SGD):
    def update(self, grads, state, params):
        if grads["bias"].norm() > 1e3:
            grads = {name: g / 2 for name, g in grads.items()}
        return super().update(grads, state, params)


class Tampered(Mixed):
    """Calls the true engine, then changes its answer."""

    def meta_gradient(self, problem, phi, state, window):
        return self.tamper(super().meta_gradient(problem, phi, state, window), phi)


@specimen(MetaOptimizerChecks, "test_the_gradient_equals_central_differences", "against central")
class SlightlyOff(Tampered):
    def tamper(self, result, phi):
        return result._replace(gradient={k: g * 1.001 for k, g in result.gradient.items()})


@specimen(MetaOptimizerChecks, "test_earlier_task_losses_are_added", "against the sum")
class Shortsighted(Mixed):
    def meta_gradient(self, problem, phi, state, window):
        return super().meta_gradient(problem, phi, state, window._replace(points=()))


@specimen(MetaOptimizerChecks, "test_the_state_is_that_of_plain_steps", "the state")
class StandingStill(Mixed):
    def meta_gradient(self, problem, phi, state, window):
        return super().meta_gradient(problem, phi, state, window)._replace(state=state)


@specimen(MetaOptimizerChecks, "test_nothing_changes", "in place")
class Overwriting(Tampered):
    def tamper(self, result, phi):
        next(iter(phi.values())).add_(1e-3)
        return result


@specimen(MetaOptimizerChecks, "test_results_are_detached", "part of a graph")
class Clinging(Tampered):
    def tamper(self, result, phi):
        hold = torch.ones((), requires_grad=True)
        return result._replace(gradient={k: g * hold for k, g in result.gradient.items()})


@specimen(MetaOptimizerChecks, "test_a_parameter_without_influence_has_gradient_zero", "names")
class Dropping(Tampered):
    def tamper(self, result, phi):
        kept = {k: g for k, g in result.gradient.items() if g.abs().max() > 0}
        return result._replace(gradient=kept)


@specimen(MetaOptimizerChecks, "test_unsupported_models_are_refused", "without second derivatives")
class Silent(Mixed):
    def meta_gradient(self, problem, phi, state, window):
        try:
            return super().meta_gradient(problem, phi, state, window)
        except ValueError:
            stepped = problem.step(phi, state, window.batches[0], window.keys[0])
            new, losses = stepped.state, stepped.loss
            zeros = {name: torch.zeros_like(value) for name, value in phi.items()}
            return MetaGradient(zeros, new, StepLosses(losses[None], losses[None], losses))


@specimen(MetaOptimizerChecks, "test_the_meta_step_goes_downhill", "inner product")
class Climbing(Mixed):
    def rule_step(self, phi, gradient, state, *, phase, total):
        uphill = {name: -g for name, g in gradient.items()}
        return super().rule_step(phi, uphill, state, phase=phase, total=total)
