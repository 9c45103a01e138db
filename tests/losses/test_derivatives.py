import pytest
import torch
from torch.func import grad, jacrev, vmap

from metaloss.types import Link

from .families import BUILT_IN, CASES, LEARNED, LINKS, build, fits, phi_of, rows, value

SMALL = {"mlp": {"hidden": [3, 2]}, "logit_adjusted": {"shares": [0.5, 0.3, 0.2]}}


def test_the_cases_cover_every_family():
    assert {
        "mlp",
        "scaled",
        "taylor",
        "symbolic",
        "cross_entropy",
        "mse",
        "mae",
        "gce",
        "label_smoothing",
        "focal",
        "logit_adjusted",
    } == {*BUILT_IN}
    assert {name for name, _ in LEARNED} == {"mlp", "scaled", "taylor", "symbolic"}


def _as_function(name, link):
    """Return the loss as a function of the outputs and φ, and points to look at."""
    loss = build(name, link, **SMALL.get(name, {}))
    outputs, target = rows(link, (3, 3))
    phi = phi_of(loss)

    def function(outputs, *values):
        return value(loss, dict(zip(phi, values, strict=True)), outputs, target)

    points = (outputs.requires_grad_(), *(p.requires_grad_() for p in phi.values()))
    return function, points


@pytest.mark.parametrize(("name", "link"), CASES)
def test_first_derivatives_equal_finite_differences(name, link):
    function, points = _as_function(name, link)
    assert torch.autograd.grad(function(*points), points[0])[0].abs().max() > 1e-4
    assert torch.autograd.gradcheck(function, points)


@pytest.mark.parametrize(("name", "link"), CASES)
def test_second_derivatives_equal_finite_differences(name, link):
    function, points = _as_function(name, link)
    if name == "mae" and link is Link.identity:
        # Piecewise linear: the first derivative is ±1/(B C), and constant.
        (slope,) = torch.autograd.grad(function(*points), points[0])
        torch.testing.assert_close(slope.abs(), torch.full_like(slope, 1 / 9))
        return
    assert torch.autograd.gradgradcheck(function, points)


@pytest.mark.parametrize(("name", "link"), CASES)
def test_vmap_over_batches_equals_a_loop(name, link):
    loss = build(name, link)
    pairs = [rows(link, seed=seed) for seed in range(3)]
    outputs, targets = (torch.stack(column) for column in zip(*pairs, strict=True))
    expected = torch.stack([loss(*pair) for pair in pairs])
    torch.testing.assert_close(vmap(loss)(outputs, targets), expected)
    slope = vmap(grad(lambda z, y: loss(z, y)))(outputs, targets)
    assert slope.shape == outputs.shape
    assert slope.abs().amax((1, 2)).min() > 0


@pytest.mark.parametrize(("name", "link"), LEARNED)
def test_vmap_over_a_population_equals_a_loop(name, link):
    losses = [build(name, link, seed=seed) for seed in range(3)]
    if name == "scaled":
        losses = [build(name, link, scale=scale) for scale in (0.5, 1.0, -2.0)]
    if name == "symbolic":
        losses = [build(name, link, seed=seed, noise=0.1) for seed in range(3)]
    outputs, target = rows(link)
    population = {
        key: torch.stack([phi_of(loss)[key] for loss in losses]) for key in phi_of(losses[0])
    }
    found = vmap(lambda phi: value(losses[0], phi, outputs, target))(population)
    torch.testing.assert_close(found, torch.stack([loss(outputs, target) for loss in losses]))
    assert found.unique().numel() == 3


@pytest.mark.parametrize(("name", "link"), CASES)
def test_the_order_of_rows_does_not_matter(name, link):
    loss = build(name, link)
    outputs, target = rows(link)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(loss(outputs[order], target[order]), loss(outputs, target))
    # And rows do matter: the targets of others give another value.
    assert not torch.isclose(loss(outputs[order], target), loss(outputs, target))


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "logit_adjusted"])
def test_the_names_of_classes_do_not_matter(name):
    loss = build(name)
    outputs, target = rows(Link.softmax)
    order = torch.tensor([2, 3, 1, 0])
    torch.testing.assert_close(
        loss(outputs[:, order], order.argsort()[target]), loss(*rows(Link.softmax))
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {}),
        ("mlp", {"output": "softplus"}),
        ("mlp", {"output": "softplus", "bias": False}),
        ("mlp", {"activation": "tanh"}),
        ("mlp", {"activation": "silu"}),
        ("scaled", {}),
    ],
)
@pytest.mark.parametrize("link", LINKS)
def test_every_parameter_moves_the_slope(name, link, options):
    from metaloss.losses.mlp import Activation, Output

    kinds = {"output": Output, "activation": Activation}
    options = {key: kinds[key][word] if key in kinds else word for key, word in options.items()}
    loss = build(name, link, **options)
    outputs, target = rows(link, (8, 4))

    def slope(phi):
        return grad(lambda z: value(loss, phi, z, target))(outputs).flatten()

    for key, jacobian in jacrev(slope)(phi_of(loss)).items():
        reach = jacobian.abs().amax(0)
        assert (reach > 0).all(), f"{key}: {int((reach == 0).sum())} of {reach.numel()} are dead"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "link"), CASES)
def test_values_and_slopes_are_finite_at_extreme_outputs(name, link, dtype):
    loss = build(name, link, **SMALL.get(name, {})).to(dtype)
    signs = torch.tensor([[1.0, -1, -1], [-1, 1, 1], [1, 1, 1], [-1, -1, -1], [0, 1, -1]])
    target = torch.tensor([0, 0, 1, 2, 1]) if link is Link.softmax else (signs.roll(1, 1) > 0)
    outputs = (1e4 * signs).to(dtype).requires_grad_()
    found = loss(outputs, target if link is Link.softmax else target.to(dtype))
    slopes = torch.autograd.grad(found, [outputs, *loss.parameters()])
    assert found.isfinite()
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_family_without_a_home_for_regression_says_so(name):
    if fits(name, Link.identity):
        assert build(name, "identity").link is Link.identity
        return
    with pytest.raises(ValueError, match="with link=identity: expected link=softmax"):
        build(name, "identity")
