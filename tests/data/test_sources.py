import dataclasses
import math
import random

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from metaloss import registry
from metaloss.data.images.digits import Digits
from metaloss.data.sequences.mnist1d import _generate
from metaloss.data.tables.diabetes import Diabetes
from metaloss.types import Link

from .small_sources import SOURCES, each_source, make, same

PARTS = ("train", "valid", "test")


def numbered(monkeypatch, name, rows=400):
    """Replace the loader by one whose first feature is the row's number."""
    generator = np.random.default_rng(5)
    inputs = generator.normal(size=(rows, 4))
    inputs[:, 0] = np.arange(rows)
    targets = np.arange(rows) % 10 if name != "diabetes" else generator.normal(size=(rows, 1))
    monkeypatch.setattr(SOURCES[name], "load", lambda self: (inputs.copy(), targets.copy()))
    return inputs, targets


@each_source
def test_shapes_types_and_contract(name):
    source = make(name)
    task = source.build(0)
    shape = {"digits": (1, 8, 8), "diabetes": (10,), "mnist1d": (40,)}[name]
    assert task.name == name
    assert task.input_shape == shape
    for part in PARTS:
        inputs, targets = getattr(task, part)
        assert inputs.dtype == torch.float32
        assert inputs.device.type == "cpu"
        if name == "diabetes":
            assert targets.shape == (len(inputs), 1)
            assert targets.dtype == torch.float32
        else:
            assert targets.shape == (len(inputs),)
            assert targets.dtype == torch.int64
    if name == "diabetes":
        assert (task.link, task.outputs, task.metric_name) == (Link.identity, 1, "mse")
        assert task.task_loss is F.mse_loss
    else:
        assert (task.link, task.outputs, task.metric_name) == (Link.softmax, 10, "error")
        assert task.task_loss is F.cross_entropy
    outputs = torch.zeros(len(task.test.inputs), task.outputs)
    assert task.metric(outputs, task.test.targets).isfinite()
    assert task.goal == "min"
    assert task.description


@each_source
def test_registered_under_its_name(name):
    part = registry.get("task", name)
    assert part.cls is SOURCES[name]
    assert part.config_class is SOURCES[name]


@each_source
def test_options_travel_through_omegaconf_and_say_what_they_are(name):
    node = OmegaConf.structured(SOURCES[name])
    OmegaConf.set_readonly(node, False)
    node = OmegaConf.merge(node, {"label_noise": 0.5, "subset": 7, "split_seed": None})
    assert OmegaConf.to_object(node) == SOURCES[name](label_noise=0.5, subset=7)
    assert all(field.metadata["help"] for field in dataclasses.fields(SOURCES[name]))


@each_source
def test_parts_are_disjoint_and_exhaust_the_rows(monkeypatch, name):
    inputs, _ = numbered(monkeypatch, name)
    source = make(name)
    rows = source.rows(3)
    assert sorted(np.concatenate(rows)) == list(range(400))
    assert [len(part) for part in rows] == [240, 60, 100]
    # The tensors hold exactly these rows: undo the scaling of the row numbers.
    task = source.build(3)
    train = inputs[rows.train]
    if source.per_feature:
        mean, std = train[:, 0].mean(), train[:, 0].std()
    else:
        mean, std = train.mean(), train.std()
    for part in PARTS:
        numbers = getattr(task, part).inputs[:, 0].double().numpy() * std + mean
        np.testing.assert_allclose(numbers, getattr(rows, part), atol=1e-2)


@each_source
def test_no_two_rows_of_the_real_data_are_shared(name):
    task = make(name).build(0)
    rows = {
        part: {tuple(r.flatten().tolist()) for r in getattr(task, part).inputs} for part in PARTS
    }
    assert sum(map(len, rows.values())) == len(set.union(*rows.values()))
    assert sum(map(len, rows.values())) == len(make(name).load()[0])


@each_source
def test_training_tensors_do_not_depend_on_validation_or_test_rows(monkeypatch, name):
    inputs, targets = numbered(monkeypatch, name)
    source = make(name, label_noise=0.3)
    rows, before = source.rows(1), source.build(1)
    held_out = np.concatenate([rows.valid, rows.test])
    inputs[held_out] = 1e6
    if name == "diabetes":
        targets[held_out] = 1e6
    monkeypatch.setattr(SOURCES[name], "load", lambda self: (inputs, targets))
    after = source.build(1)
    assert same(before.train, after.train)
    assert before.constant_loss == after.constant_loss
    assert not torch.equal(before.test.inputs, after.test.inputs)


@each_source
@pytest.mark.parametrize("subset", [None, 100])
def test_the_kept_training_rows_are_standardised(name, subset):
    task = make(name, subset=subset).build(0)
    inputs = task.train.inputs.double()
    dimensions = (0,) if name == "diabetes" else tuple(range(inputs.ndim))
    zeros = torch.zeros_like(inputs.mean(dimensions))
    torch.testing.assert_close(inputs.mean(dimensions), zeros, atol=1e-5, rtol=0)
    deviation = inputs.std(dimensions, correction=0)
    torch.testing.assert_close(deviation, zeros + 1, atol=1e-5, rtol=0)
    assert abs(task.test.inputs.double().mean()) > 1e-4


def test_regression_targets_are_in_units_of_the_clean_training_targets():
    clean, noisy = (Diabetes(label_noise=noise).build(0) for noise in (0.0, 0.4))
    targets = clean.train.targets.double()
    assert targets.mean().item() == pytest.approx(0, abs=1e-6)
    assert targets.var(correction=0).item() == pytest.approx(1, abs=1e-6)
    # Otherwise test metrics would not be comparable between shares of noise.
    assert same(clean.test, noisy.test)
    assert same(clean.valid, noisy.valid)


def test_a_constant_feature_is_only_centred(monkeypatch):
    inputs, _ = numbered(monkeypatch, "diabetes")
    inputs[:, 1] = 0.1
    monkeypatch.setattr(Diabetes, "load", lambda self: (inputs, np.arange(400.0)[:, None]))
    assert Diabetes().build(0).test.inputs[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_parts_are_stratified(name):
    task = make(name).build(0)
    everything = torch.bincount(torch.cat([getattr(task, part).targets for part in PARTS]))
    for part in PARTS:
        targets = getattr(task, part).targets
        share = len(targets) / everything.sum()
        assert (torch.bincount(targets) - share * everything).abs().max() < 2


@each_source
def test_the_seed_decides_everything(name):
    source = make(name, label_noise=0.3, noisy_validation=True)
    one, again, other = source.build(4), source.build(4), source.build(5)
    for part in PARTS:
        assert same(getattr(one, part), getattr(again, part))
        assert not torch.equal(getattr(one, part).inputs, getattr(other, part).inputs)
    assert one.constant_loss == again.constant_loss


@each_source
def test_a_split_seed_takes_the_place_of_the_runs_seed(name):
    fixed = make(name, label_noise=0.3, split_seed=4)
    reference = make(name, label_noise=0.3).build(4)
    for seed in (0, 1):
        assert same(fixed.build(seed).train, reference.train)
        assert same(fixed.build(seed).test, reference.test)


@each_source
def test_global_random_states_are_untouched(name):
    _generate.cache_clear()
    random.seed(11)
    np.random.seed(11)  # noqa: NPY002
    expected = random.random(), np.random.rand(), torch.random.get_rng_state()  # noqa: NPY002
    random.seed(11)
    np.random.seed(11)  # noqa: NPY002
    make(name, label_noise=0.5, subset=50).build(0)
    assert (random.random(), np.random.rand()) == expected[:2]  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), expected[2])


@pytest.mark.parametrize(
    "options", [{}, {"label_noise": 0.5}, {"imbalance": 20.0}, {"label_smoothing": 0.3}]
)
def test_constant_loss_of_classes_against_brute_force(options):
    task = Digits(**options).build(0)
    frequencies = torch.bincount(task.train.targets, minlength=10) / len(task.train.targets)
    smoothing = options.get("label_smoothing", 0.0)
    frequencies = (1 - smoothing) * frequencies + smoothing / 10
    best = task.task_loss(frequencies.log().expand(len(task.train.targets), 10), task.train.targets)
    assert task.constant_loss == pytest.approx(best.item(), rel=1e-5)
    uniform = torch.zeros(len(task.train.targets), 10)
    assert task.constant_loss <= task.task_loss(uniform, task.train.targets).item() + 1e-6
    assert task.constant_loss <= math.log(10) + 1e-9


def test_smoothed_labels_are_the_judge_s_alone():
    plain, smoothed = Digits(label_noise=0.2).build(0), Digits(label_noise=0.2, label_smoothing=0.3)
    smoothed = smoothed.build(0)
    for one, other in zip(plain.train, smoothed.train, strict=True):
        assert torch.equal(one, other)
    outputs, targets = torch.randn(64, 10), plain.valid.targets[:64]
    aims = 0.7 * F.one_hot(targets, 10) + 0.3 / 10
    expected = -(aims * outputs.log_softmax(1)).sum(dim=1).mean()
    torch.testing.assert_close(smoothed.task_loss(outputs, targets), expected)
    assert plain.task_loss is F.cross_entropy
    assert smoothed.metric(outputs, targets) == plain.metric(outputs, targets)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_constant_loss_of_values_against_brute_force(noise):
    targets = Diabetes(label_noise=noise).build(0).train.targets
    constants = torch.linspace(-1, 1, 2001)
    losses = (targets - constants).square().mean(dim=0)
    constant_loss = Diabetes(label_noise=noise).build(0).constant_loss
    assert constant_loss == pytest.approx(losses.min().item(), rel=1e-5)
    assert (constant_loss > 5) == (noise > 0)
