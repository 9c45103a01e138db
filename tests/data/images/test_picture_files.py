"""Files of pictures that are missing, damaged or hostile."""

import io
import pickle

import numpy as np
import pytest

from metaloss.data.images.plain_pickle import read_plain
from metaloss.errors import MetalossError

from .published import (
    python2_pickle,
)
from .sources import SOURCES, each_source


@each_source
def test_missing_files_are_named_in_one_line(tmp_path, name):
    with pytest.raises(MetalossError) as error:
        SOURCES[name](root=str(tmp_path)).build(0)
    text = str(error.value)
    assert text.startswith(f"task={name}: {tmp_path} lacks ")
    assert all(file in text for file in SOURCES[name].files)
    assert "task.root=FOLDER" in text
    assert "task.download=true" in text
    assert "\n" not in text


def test_a_single_missing_file_is_named_alone(written, tmp_path):
    source, _ = written("cifar10")
    (tmp_path / "files/cifar-10-batches-py/data_batch_3").unlink()
    with pytest.raises(MetalossError, match=r"lacks cifar-10-batches-py/data_batch_3: put"):
        source.build(0)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte.gz"),
        ("cifar10", "cifar-10-batches-py/data_batch_2"),
        ("svhn", "test_32x32.mat"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(written, tmp_path, name, file):
    source, _ = written(name)
    path = tmp_path / "files" / file
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(MetalossError) as error:
        source.build(0)
    assert str(error.value).startswith(f"{path}: cannot be read: ")
    assert "\n" not in str(error.value)


def test_labels_out_of_range_are_refused(written, tmp_path):
    source, _ = written("cifar10")
    pictures, labels = np.zeros((4, 3, 32, 32), dtype=np.uint8), np.array([0, 1, 2, 10])
    content = python2_pickle({b"labels": labels, b"data": pictures})
    (tmp_path / "files/cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(MetalossError, match="test labels from 0 to 10; expected 0 to 9"):
        source.build(0)


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_nothing_in_a_file_is_executed(written, tmp_path):
    source, _ = written("cifar10")
    path = tmp_path / "files/cifar-10-batches-py/data_batch_1"
    path.write_bytes(pickle.dumps({"labels": [1], "data": Harmful()}))
    with pytest.raises(MetalossError, match=r"the pickle names builtins\.exec: expected numbers"):
        source.build(0)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_numbers_are_read(protocol):
    content = {"labels": [1, 2], "data": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    if protocol in (0, 1, 5):
        content.pop("data")  # numpy's own forms there need more than plain names
    found = read_plain(io.BytesIO(pickle.dumps(content, protocol=protocol)))
    assert found["labels"] == [1, 2]
    if "data" in content:
        assert (found["data"] == content["data"]).all()


def test_arrays_of_objects_are_refused():
    content = pickle.dumps(np.array([{}, []], dtype=object), protocol=2)
    with pytest.raises(MetalossError, match="an array of object: expected numbers"):
        read_plain(io.BytesIO(content))


@each_source
def test_a_download_without_a_network_says_so_in_one_line(tmp_path, name, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(MetalossError) as error:
        SOURCES[name](root=str(tmp_path), download=True).build(0)
    text = str(error.value)
    assert text.startswith(f"task={name}, task.download=true: ")
    source = SOURCES[name](root=str(tmp_path))
    assert f"; without a network put {source.archive} into {tmp_path}, which has no " in text
    assert all(file in text for file in source.files)
    assert "\n" not in str(error.value)


@each_source
def test_files_that_are_there_are_not_downloaded(written, name, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("asked the network")

    monkeypatch.setattr("urllib.request.urlopen", forbidden)
    source, _ = written(name, download=True)
    assert len(source.build(0).train.inputs) > 100
