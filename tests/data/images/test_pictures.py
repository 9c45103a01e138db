"""Picture data sets, from small files in their published formats."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import metaloss
from metaloss.data.augment import CropFlipCutout
from metaloss.data.images import mnist
from metaloss.data.images.cifar import CIFAR10
from metaloss.data.images.mnist import MNIST, FashionMNIST
from metaloss.data.images.picture_rows import Augment
from metaloss.errors import MetalossError
from metaloss.testing import check_part

from .published import write_mnist
from .sources import each_source

SYSTEM = mnist.SYSTEM


@each_source
def test_every_task_keeps_its_contract(written, name):
    source, _ = written(name)
    results = check_part("task", name, source)
    assert [f"{r.name}: {r.message}" for r in results if not r.passed] == []


@each_source
def test_what_is_in_the_files_comes_out(written, name):
    source, ((train, train_labels), (test, test_labels)) = written(name)
    rows, task = source.rows(3), source.build(3)
    assert sorted([*rows.train, *rows.valid]) == list(range(len(train)))
    assert (rows.test == len(train) + np.arange(len(test))).all()
    assert len(rows.valid) == round(0.1 * len(train))
    mean = train[rows.train].astype(np.float64).mean((0, 2, 3))[:, None, None]
    std = train[rows.train].astype(np.float64).std((0, 2, 3))[:, None, None]
    for part, pictures, labels in (
        (task.train, train[rows.train], train_labels[rows.train]),
        (task.valid, train[rows.valid], train_labels[rows.valid]),
        (task.test, test, test_labels),
    ):
        assert part.inputs.dtype == torch.float32
        np.testing.assert_allclose(part.inputs, (pictures - mean) / std, atol=1e-5)
        assert part.targets.tolist() == labels.tolist()
    assert task.outputs == len(set(train_labels.tolist()))


@each_source
def test_validation_rows_are_stratified_and_the_test_split_is_the_published_one(written, name):
    source, (_, (test, _)) = written(name, valid_fraction=0.5)
    one, other = source.build(0), source.build(1)
    assert torch.equal(one.test.targets, other.test.targets)
    assert len(one.test.inputs) == len(test)
    assert not torch.equal(one.valid.inputs, other.valid.inputs)
    counts = torch.bincount(one.valid.targets, minlength=one.outputs)
    assert counts.max() - counts.min() <= 1


@each_source
def test_the_augmentation_is_that_of_the_literature(written, name):
    expected = {
        "cifar10": CropFlipCutout(padding=4, flip=True),
        "cifar100": CropFlipCutout(padding=4, flip=True),
        "svhn": CropFlipCutout(padding=4),
    }
    source, _ = written(name)
    assert source.build(0).augment == expected.get(name)
    source, _ = written(name, augment=Augment.none)
    assert source.build(0).augment is None
    source, _ = written(name, augment=Augment.none, cutout=8)
    assert source.build(0).augment == CropFlipCutout(cutout=8)


def test_a_source_can_ask_for_streaming(written):
    assert [written("mnist", stream=wish)[0].build(0).stream for wish in (None, True, False)] == [
        None,
        True,
        False,
    ]


@each_source
def test_corruptions_spare_the_test_rows(written, name):
    source, _ = written(name)
    clean = source.build(0)
    source, _ = written(name, label_noise=0.4, input_noise=0.3, noisy_validation=True)
    noisy = source.build(0)
    for tensors in zip(clean.test, noisy.test, strict=True):
        assert torch.equal(*tensors)
    wrong = (clean.train.targets != noisy.train.targets).sum().item()
    assert wrong == round(0.4 * len(clean.train.targets))
    added = noisy.train.inputs - clean.train.inputs
    assert added.std().item() == pytest.approx(0.3, rel=0.02)


def test_unpacked_files_are_read_as_well(tmp_path):
    write_mnist(tmp_path / "packed")
    write_mnist(tmp_path / "unpacked", compress=False)
    one, other = (MNIST(root=str(tmp_path / f)).build(0) for f in ("packed", "unpacked"))
    assert torch.equal(one.train.inputs, other.train.inputs)
    # What is not the reader's own stays as it is.
    assert all(path.suffix == ".gz" for path in (tmp_path / "packed/MNIST/raw").iterdir())


def test_fashion_mnist_is_found_where_the_system_s_package_puts_it(tmp_path, system):
    ((pictures, labels), _) = write_mnist(tmp_path, "FashionMNIST")
    (tmp_path / "FashionMNIST/raw").rename(system)
    table = FashionMNIST(root=str(tmp_path)).table()
    assert (table.inputs[: len(labels)] == pictures).all()
    assert (table.targets[: len(labels)] == labels).all()
    with pytest.raises(MetalossError, match="lacks MNIST/raw/train-images-idx3-ubyte"):
        MNIST(root=str(tmp_path)).table()
    # The files below the root come first.
    ((other, _), _) = write_mnist(tmp_path / "own", "FashionMNIST", seed=7)
    assert (FashionMNIST(root=str(tmp_path / "own")).table().inputs[: len(labels)] == other).all()
    assert (other != pictures).any()


@pytest.mark.skipif(not SYSTEM.exists(), reason="needs the package dataset-fashion-mnist")
def test_the_system_s_fashion_mnist_is_the_published_one(monkeypatch, tmp_path):
    monkeypatch.setattr(mnist, "SYSTEM", SYSTEM)
    table = FashionMNIST(root=str(tmp_path)).table()
    assert table.inputs.shape == (70_000, 1, 28, 28)
    assert np.bincount(table.targets[:60_000]).tolist() == [6000] * 10
    assert table.given["test"].tolist() == [*range(60_000, 70_000)]
    # Mean and deviation as they are commonly given.
    train = table.inputs[:60_000] / 255
    assert (round(train.mean(), 4), round(train.std(), 4)) == (0.2860, 0.3530)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": 0}, "task.padding=0: expected a whole number, at least 1"),
        ({"cutout": -1}, "task.cutout=-1: expected a whole number, at least 0"),
        ({"valid_fraction": 1}, "task.valid_fraction=1: expected a number > 0 and < 1"),
    ],
)
def test_options_out_of_range_are_named_with_the_range(options, message):
    with pytest.raises(MetalossError) as error:
        CIFAR10(**options)
    assert str(error.value) == message


def test_a_run_learns_from_augmented_pictures_and_resumes(written, tmp_path):
    written("cifar10")
    words = [
        "task=cifar10",
        f"task.root={tmp_path / 'files'}",
        "model=mlp",
        "model.hidden=[8]",
        "schedule=online",
        "start.steps=10",
        "batch_size=16",
        "meta_batch_size=16",
        "tracker=[]",
        "checkpoint_every=4",
        "eval_every=4",
        "log_every=4",
    ]
    whole = metaloss.train([*words, "steps=8", f"output={tmp_path / 'whole'}"])
    metaloss.train([*words, "steps=4", f"output={tmp_path / 'run'}"])
    words.append("task.augment=none")
    metaloss.train([*words, "steps=8", f"output={tmp_path / 'plain'}"])
    resumed = metaloss.resume_run(tmp_path / "run", steps=8)
    one, other = (load_file(run.folder / "model.safetensors") for run in (whole, resumed))
    # Up to rounding, which depends on where in memory a tensor lies.
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    plain = load_file(tmp_path / "plain/model.safetensors")
    assert any((one[key] - plain[key]).abs().max() > 2e-3 for key in one)
