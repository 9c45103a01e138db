import copy
import sys

import pytest
import torch
from torch.nn import functional as F

from metaloss.errors import MetalossError
from metaloss.losses import CrossEntropy, MLPLoss, Scaled
from metaloss.losses.mlp import MLPLossConfig
from metaloss.losses.scaled import ScaledConfig
from metaloss.starts import Imitate, Keep, Random, imitate
from metaloss.types import Link

TASK_LOSSES = {
    Link.softmax: F.cross_entropy,
    Link.sigmoid: F.binary_cross_entropy_with_logits,
    Link.identity: F.mse_loss,
}
STARTS = [Imitate(steps=3), Keep(), Random()]


def _loss(link=Link.softmax, seed=0, kind=MLPLoss):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(link=link)


def _fresh(link, outputs, rows=256):
    """Return outputs and targets that the fit has not seen."""
    draw = torch.Generator().manual_seed(99)
    z = 2 * torch.randn(rows, outputs, generator=draw)
    if link is Link.softmax:
        return z, torch.randint(outputs, (rows,), generator=draw)
    if link is Link.sigmoid:
        return z, torch.randint(2, (rows, outputs), generator=draw).float()
    target = torch.randn(rows, outputs, generator=draw)
    return target + z, target


def _slope(loss, z, target):
    z = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(z, target), z)
    return slope


def _into(rows):
    return lambda step, numbers: rows.append((step, numbers))


def _filled(loss, phi):
    loss = copy.deepcopy(loss)
    loss.load_state_dict(phi, strict=False)
    return loss


@pytest.mark.parametrize(
    ("link", "outputs", "tolerance"),
    [
        (Link.softmax, 10, 0.6),
        (Link.softmax, 3, 0.4),
        (Link.sigmoid, 2, 0.35),
        (Link.identity, 1, 0.05),
    ],
)
def test_imitation_comes_near_the_task_losss_gradient_where_it_never_was(link, outputs, tolerance):
    loss, task_loss = _loss(link), TASK_LOSSES[link]
    phi = Imitate(steps=400).begin(loss, task_loss, outputs, seed=0)
    z, target = _fresh(link, outputs)
    aim = _slope(task_loss, z, target)
    before, after = _slope(loss, z, target), _slope(_filled(loss, phi), z, target)

    def misfit(slope):
        return ((slope - aim).norm() / aim.norm()).item()

    # A fifth of the default's steps. A random loss is off by the gradient's whole size.
    assert misfit(after) < tolerance
    assert misfit(before) > 0.95
    assert torch.cosine_similarity(after.flatten(), aim.flatten(), dim=0) > 0.8


@pytest.mark.parametrize("link", list(Link))
def test_imitation_of_the_loss_itself_finds_the_factor_one(link):
    loss = Scaled(ScaledConfig(scale=3.0), link=link)
    phi = Imitate(steps=300, lr=0.05).begin(loss, TASK_LOSSES[link], 4, seed=0)
    torch.testing.assert_close(phi["scale"], torch.tensor(1.0), rtol=1e-2, atol=0)


@pytest.mark.parametrize("link", Link)
@pytest.mark.parametrize("start", [Imitate(steps=60), Keep(), Random()])
def test_losses_that_begin_together_begin_as_they_would_alone(start, link, monkeypatch):
    monkeypatch.setattr(sys.modules[Imitate.__module__], "_REPORT_EVERY", 20)
    losses = [_loss(link, seed).double() for seed in (3, 4, 5)]
    told = [[], [], []]
    together = start.begin_together(
        losses,
        TASK_LOSSES[link],
        5,
        (3, 4, 5),
        [_into(one) for one in told],
    )
    assert [len(rows) for rows in told] == [3 * isinstance(start, Imitate)] * 3
    for seed, loss, found, rows in zip((3, 4, 5), losses, together, told, strict=True):
        alone_told = []
        alone = start.begin(loss, TASK_LOSSES[link], 5, seed, _into(alone_told))
        assert alone.keys() == found.keys()
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
        assert [step for step, _ in rows] == [step for step, _ in alone_told]
        for (_, here), (_, there) in zip(rows, alone_told, strict=True):
            assert here == pytest.approx(there, rel=1e-9)


@pytest.mark.parametrize("start", STARTS)
def test_one_seed_gives_one_phi_and_another_another(start):
    def phi(seed):
        return start.begin(_loss(), F.cross_entropy, 4, seed)["layers.0.weight"]

    assert torch.equal(phi(0), phi(0))
    assert torch.equal(phi(0), phi(1)) == (type(start) is not Imitate)


@pytest.mark.parametrize("start", STARTS)
def test_nothing_but_phi_is_touched(start):
    loss = _loss()
    before = copy.deepcopy(loss.state_dict())
    state = torch.get_rng_state()
    phi = start.begin(loss, F.cross_entropy, 4, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())
    assert all(p.grad is None for p in loss.parameters())
    assert phi.keys() == before.keys()
    assert not any(value.requires_grad for value in phi.values())
    phi["layers.0.weight"].fill_(7.0)
    assert not (loss.layers[0].weight == 7).any()


@pytest.mark.parametrize("start", [Keep(), Random()])
def test_keep_and_random_begin_with_what_the_loss_holds(start):
    loss = _loss()
    phi = start.begin(loss, F.cross_entropy, 4, seed=3)
    assert all(torch.equal(phi[name], value) for name, value in loss.named_parameters())


def test_imitation_reports_a_falling_misfit():
    told = []
    start = Imitate(steps=750)
    start.begin(_loss(), F.cross_entropy, 4, seed=0, report=lambda *args: told.append(args))
    assert [step for step, _ in told] == [250, 500, 750]
    misfits = [numbers["start/misfit"] for _, numbers in told]
    assert misfits[0] > misfits[-1] > 0
    assert start.total == 750
    assert Keep().total == Random().total == 0


@pytest.mark.parametrize("start", STARTS)
def test_a_loss_without_parameters_is_left_alone(start):
    assert start.begin(CrossEntropy(), F.cross_entropy, 4, seed=0) == {}


@pytest.mark.parametrize("start", [Imitate(steps=3), Random()])
def test_a_loaded_loss_is_not_thrown_away(start):
    loss = _loss()
    loss.loaded = True
    with pytest.raises(MetalossError, match="expected start=keep"):
        start.begin(loss, F.cross_entropy, 4, seed=0)
    assert Keep().begin(loss, F.cross_entropy, 4, seed=0)


def test_the_guard_may_imitate_in_place_of_a_loaded_loss():
    loss, loaded = _loss(), _loss()
    loaded.loaded = True
    fitted = Imitate(steps=3).fit(loaded, F.cross_entropy, 4, seed=0)
    aim = Imitate(steps=3).begin(loss, F.cross_entropy, 4, seed=0)
    assert all(torch.equal(fitted[name], aim[name]) for name in aim)


def test_imitation_works_in_the_losss_own_precision():
    phi = Imitate(steps=3).begin(_loss().double(), F.cross_entropy, 4, seed=0)
    assert {value.dtype for value in phi.values()} == {torch.float64}


@pytest.mark.parametrize("option", ["steps", "lr", "rows", "spread"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(MetalossError, match=f"start.{option}={value}: expected a positive number"):
        Imitate(**{option: value})


def test_a_loss_for_ones_own_loop_is_filled_in_place():
    loss = _loss()
    expected = Imitate(steps=3).begin(loss, F.cross_entropy, 4, seed=1)
    found = imitate(loss, F.cross_entropy, 4, seed=1, config=Imitate(steps=3))
    assert found is loss
    assert all(torch.equal(value, expected[name]) for name, value in loss.named_parameters())
    assert all(value.requires_grad for value in loss.parameters())


def _partly_frozen(seed=0):
    loss = _loss(seed=seed)
    loss.layers[0].requires_grad_(False)
    loss.layers[1].bias.requires_grad_(False)
    return loss


@pytest.mark.parametrize("start", STARTS)
def test_frozen_parameters_stay_whatever_the_start(start):
    losses = [_partly_frozen(seed) for seed in (3, 4)]
    together = start.begin_together(losses, F.cross_entropy, 4, (3, 4), [_into([])] * 2)
    for loss, seed, there in zip(losses, (3, 4), together, strict=True):
        phi = start.begin(loss, F.cross_entropy, 4, seed)
        assert list(phi) == list(there) == [name for name, _ in loss.named_parameters()]
        moved = {name: not torch.equal(phi[name], p) for name, p in loss.named_parameters()}
        for name, value in loss.named_parameters():
            assert moved[name] == (value.requires_grad and type(start) is Imitate)
            torch.testing.assert_close(there[name], phi[name])


def test_frozen_parameters_stay_in_a_loss_for_ones_own_loop():
    loss = _partly_frozen()
    before = {name: value.detach().clone() for name, value in loss.named_parameters()}
    frozen = [name for name, value in loss.named_parameters() if not value.requires_grad]
    imitate(loss, F.cross_entropy, 4, config=Imitate(steps=3))
    assert [name for name, value in loss.named_parameters() if not value.requires_grad] == frozen
    same = [name for name, value in loss.named_parameters() if torch.equal(value, before[name])]
    assert same == frozen
    assert len(frozen) == 3


def test_a_loss_that_is_frozen_as_a_whole_is_left_alone():
    loss = _loss().requires_grad_(False)
    told = []
    phi = Imitate(steps=250).begin(loss, F.cross_entropy, 4, 0, lambda *row: told.append(row))
    assert all(torch.equal(phi[name], value) for name, value in loss.named_parameters())
    assert told == []


def test_a_class_that_is_ignored_teaches_nothing():
    """The task loss says nothing about class 1: its rows must not pull φ towards no slope."""

    def task_loss(outputs, targets):
        return F.cross_entropy(outputs, targets, ignore_index=1)

    loss = Scaled(ScaledConfig(scale=3.0), ignore_index=1)
    phi = Imitate(steps=300, lr=0.05).begin(loss, task_loss, 4, seed=0)
    torch.testing.assert_close(phi["scale"], torch.tensor(1.0), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loss_in_half_precision_is_fitted_in_single_and_rounded(dtype):
    half = _loss().to(dtype)
    single = _loss()
    single.load_state_dict(half.state_dict())
    fit = Imitate(steps=20)
    aim = fit.begin(single, F.cross_entropy, 4, seed=0)
    for name, value in fit.begin(half, F.cross_entropy, 4, seed=0).items():
        assert value.dtype == dtype
        torch.testing.assert_close(value, aim[name].to(dtype))


def fitted(task_loss, *, traces, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = MLPLoss(MLPLossConfig(hidden=[5])).double()
    with monkeypatch.context() as patch:
        if not traces:
            patch.setattr(sys.modules[Imitate.__module__], "_traced", lambda function, *_: function)
        imitate(loss, task_loss, 4, config=Imitate(steps=60))
    return torch.cat([value.detach().flatten() for value in loss.parameters()])


def test_the_traced_fit_is_the_untraced_one_to_the_bit(monkeypatch):
    asked = []

    def task_loss(outputs, targets):
        asked.append(1)
        return F.cross_entropy(outputs, targets)

    found = fitted(task_loss, traces=True, monkeypatch=monkeypatch)
    assert len(asked) == 1
    expected = fitted(task_loss, traces=False, monkeypatch=monkeypatch)
    assert len(asked) == 1 + 60
    assert torch.equal(found, expected)


def test_a_task_loss_that_looks_at_its_numbers_is_asked_every_time(monkeypatch):
    ways = []

    def task_loss(outputs, targets):
        value = F.cross_entropy(outputs, targets)
        ways.append(bool(value.detach() < 2))
        return value if ways[-1] else 2 * value

    found = fitted(task_loss, traces=True, monkeypatch=monkeypatch)
    assert set(ways) == {True, False}
    assert torch.equal(found, fitted(task_loss, traces=False, monkeypatch=monkeypatch))
