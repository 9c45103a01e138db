import dataclasses
import math
import random

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from metaloss import registry
from metaloss.data.corruptions import NoiseKind
from metaloss.data.images.digits import Digits
from metaloss.data.sequences.mnist1d import MNIST1D, _generate
from metaloss.data.tables.diabetes import Diabetes
from metaloss.errors import MetalossError
from metaloss.types import Link

SOURCES = {"digits": Digits, "diabetes": Diabetes, "mnist1d": MNIST1D}
OPTIONS = {"digits": {}, "diabetes": {}, "mnist1d": {"samples": 600}}
PARTS = ("train", "valid", "test")
each_source = pytest.mark.parametrize("name", SOURCES)


def make(name, **options):
    return SOURCES[name](**OPTIONS[name], **options)


def numbered(monkeypatch, name, rows=400):
    """Replace the loader by one whose first feature is the row's number."""
    generator = np.random.default_rng(5)
    inputs = generator.normal(size=(rows, 4))
    inputs[:, 0] = np.arange(rows)
    targets = np.arange(rows) % 10 if name != "diabetes" else generator.normal(size=(rows, 1))
    monkeypatch.setattr(SOURCES[name], "load", lambda self: (inputs.copy(), targets.copy()))
    return inputs, targets


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


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


@each_source
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_exactly_the_share_of_training_targets_is_corrupted(name, share):
    clean, noisy = make(name).build(2), make(name, label_noise=share).build(2)
    differ = (clean.train.targets != noisy.train.targets).sum().item()
    assert differ == round(share * len(clean.train.targets))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)


@each_source
def test_noise_never_touches_test_and_validation_only_if_asked(name):
    clean = make(name).build(2)
    noisy = make(name, label_noise=0.5).build(2)
    both = make(name, label_noise=0.5, noisy_validation=True).build(2)
    assert same(clean.valid, noisy.valid)
    assert same(clean.test, noisy.test)
    assert same(clean.test, both.test)
    assert same(noisy.train, both.train)
    differ = (clean.valid.targets != both.valid.targets).sum().item()
    assert differ == round(0.5 * len(clean.valid.targets))


@each_source
def test_noise_on_inputs_is_on_training_inputs_alone(name):
    clean, noisy = make(name).build(2), make(name, input_noise=0.5).build(2)
    for part in ("valid", "test"):
        assert same(getattr(clean, part), getattr(noisy, part))
    assert torch.equal(clean.train.targets, noisy.train.targets)
    added = noisy.train.inputs - clean.train.inputs
    assert added.std().item() == pytest.approx(0.5, rel=0.05)
    again = make(name, input_noise=0.5, label_noise=0.2).build(2)
    assert torch.equal(again.train.inputs, noisy.train.inputs)


@each_source
def test_few_validation_rows_are_kept_for_judging(name):
    whole, part = make(name).rows(0), make(name, meta_fraction=0.2).rows(0)
    assert len(part.valid) == round(0.2 * len(whole.valid))
    assert set(part.valid) < set(whole.valid)
    assert (part.train == whole.train).all()
    assert (part.test == whole.test).all()


def test_the_kept_validation_rows_are_stratified():
    targets = Digits(meta_fraction=0.4).build(0).valid.targets
    counts = torch.bincount(targets, minlength=10)
    whole = torch.bincount(Digits().build(0).valid.targets, minlength=10)
    assert (counts - 0.4 * whole).abs().max() < 1.5


def test_pair_noise_moves_labels_to_the_next_class():
    clean = Digits().build(2).train.targets
    noisy = Digits(label_noise=0.45, noise_kind=NoiseKind.pair).build(2).train.targets
    wrong = clean != noisy
    assert wrong.sum() == round(0.45 * len(clean))
    assert torch.equal(noisy[wrong], (clean[wrong] + 1) % 10)


def test_outliers_have_the_stated_size():
    clean = Diabetes(valid_fraction=0.01, test_fraction=0.01).build(0).train.targets
    for size in (0.5, 8.0):
        noisy = Diabetes(
            label_noise=0.9, outlier_size=size, valid_fraction=0.01, test_fraction=0.01
        ).build(0)
        added = (noisy.train.targets - clean)[noisy.train.targets != clean]
        assert added.std().item() == pytest.approx(size, rel=0.15)


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_parts_are_stratified(name):
    task = make(name).build(0)
    everything = torch.bincount(torch.cat([getattr(task, part).targets for part in PARTS]))
    for part in PARTS:
        targets = getattr(task, part).targets
        share = len(targets) / everything.sum()
        assert (torch.bincount(targets) - share * everything).abs().max() < 2


def test_imbalance_follows_the_profile_in_the_training_rows_alone():
    plain, tailed = Digits().build(0), Digits(imbalance=20).build(0)
    counts = torch.bincount(tailed.train.targets, minlength=10)
    largest = int(counts[0])
    assert largest > 90
    assert counts.tolist() == [round(largest * 20 ** (-c / 9)) for c in range(10)]
    assert same(
        plain.valid._replace(inputs=plain.valid.targets),
        tailed.valid._replace(inputs=tailed.valid.targets),
    )
    assert (Digits().rows(0).test == Digits(imbalance=20).rows(0).test).all()
    assert set(Digits(imbalance=20).rows(0).train) < set(Digits().rows(0).train)


@each_source
def test_a_subset_keeps_so_many_training_rows(name):
    whole, part = make(name).rows(0), make(name, subset=50).rows(0)
    assert len(part.train) == 50
    assert set(part.train) < set(whole.train)
    assert (part.valid == whole.valid).all()
    assert (part.test == whole.test).all()
    assert len(make(name, subset=50).build(0).train.inputs) == 50


def test_a_subset_keeps_the_imbalance():
    targets = Digits(imbalance=10, subset=200).build(0).train.targets
    full = torch.bincount(Digits(imbalance=10).build(0).train.targets, minlength=10)
    expected = full * 200 / full.sum()
    assert (torch.bincount(targets, minlength=10) - expected).abs().max() < 1


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


def test_global_random_states_come_back_after_a_failure(monkeypatch):
    import mnist1d.data

    def fails(arguments):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        raise RuntimeError("generator")

    _generate.cache_clear()
    monkeypatch.setattr(mnist1d.data, "make_dataset", fails)
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with pytest.raises(RuntimeError, match="generator"):
        MNIST1D(samples=100).build(0)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002


def test_mnist1d_never_downloads_and_never_unpickles(monkeypatch):
    import mnist1d.data

    def forbidden(*args, **kwargs):
        raise AssertionError("called")

    _generate.cache_clear()
    for name in ("get_dataset", "from_pickle"):
        monkeypatch.setattr(mnist1d.data, name, forbidden)
    monkeypatch.setattr(mnist1d.data.requests, "get", forbidden)
    assert len(MNIST1D(samples=200).build(0).train.inputs) == 120


def test_mnist1d_rows_are_the_packages_up_to_scale():
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = 600
    state = random.getstate(), np.random.get_state()  # noqa: NPY002
    made = make_dataset(arguments)
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    source = MNIST1D(samples=600)
    rows, task = source.rows(0), source.build(0)
    raw = np.concatenate([made["x"], made["x_test"]])
    assert (
        np.concatenate([made["y"], made["y_test"]])[rows.test] == task.test.targets.numpy()
    ).all()
    correlation = np.corrcoef(raw[rows.test].flatten(), task.test.inputs.flatten().numpy())[0, 1]
    assert correlation == pytest.approx(1, abs=1e-6)
    assert source.load()[0] is source.load()[0]
    with pytest.raises(ValueError, match="read-only"):
        source.load()[0][0, 0] = 1.0


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


BAD = [
    (Digits, {"label_noise": 1.0}, "task.label_noise=1.0: expected a number ≥ 0 and < 1"),
    (Digits, {"label_noise": -0.1}, "task.label_noise=-0.1: expected a number ≥ 0 and < 1"),
    (Digits, {"label_noise": math.nan}, "task.label_noise=nan: expected a number ≥ 0 and < 1"),
    (Digits, {"label_noise": "much"}, "task.label_noise=much: expected a number ≥ 0 and < 1"),
    (Digits, {"imbalance": 0.5}, "task.imbalance=0.5: expected a number ≥ 1 and finite"),
    (Digits, {"imbalance": math.inf}, "task.imbalance=inf: expected a number ≥ 1 and finite"),
    (Digits, {"label_smoothing": 1}, "task.label_smoothing=1: expected a number ≥ 0 and < 1"),
    (Diabetes, {"outlier_size": 0}, "task.outlier_size=0: expected a number > 0 and finite"),
    (Digits, {"valid_fraction": 0}, "task.valid_fraction=0: expected a number > 0 and < 1"),
    (Digits, {"test_fraction": 1.5}, "task.test_fraction=1.5: expected a number > 0 and < 1"),
    (
        Digits,
        {"valid_fraction": 0.5, "test_fraction": 0.5},
        "task.valid_fraction=0.5 and task.test_fraction=0.5: expected a sum below 1",
    ),
    (Digits, {"input_noise": -1}, "task.input_noise=-1: expected a number ≥ 0 and finite"),
    (Digits, {"meta_fraction": 0}, "task.meta_fraction=0: expected a number > 0 and ≤ 1"),
    (Digits, {"meta_fraction": 1.1}, "task.meta_fraction=1.1: expected a number > 0 and ≤ 1"),
    (Digits, {"subset": 0}, "task.subset=0: expected a whole number, at least 1"),
    (Digits, {"subset": 2.5}, "task.subset=2.5: expected a whole number, at least 1"),
    (Digits, {"split_seed": -1}, "task.split_seed=-1: expected a whole number, at least 0"),
    (MNIST1D, {"samples": 10}, "task.samples=10: expected a whole number, at least 100"),
]


@pytest.mark.parametrize(("source", "options", "message"), BAD)
def test_options_out_of_range_are_named_with_the_range(source, options, message):
    with pytest.raises(MetalossError) as error:
        source(**options)
    assert str(error.value) == message


def test_more_rows_than_there_are_is_an_error():
    with pytest.raises(MetalossError, match=r"^task.subset=1079: expected at most 1078, the train"):
        Digits(subset=1079).build(0)
    message = r"^task.meta_fraction=0.001: no trusted rows left, of 270; .* least 0.0037$"
    with pytest.raises(MetalossError, match=message):
        Digits(meta_fraction=0.001).build(0)
    with pytest.raises(MetalossError, match=r"^task.imbalance=200: the smallest class would keep"):
        Digits(imbalance=200).build(0)
