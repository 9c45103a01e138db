"""Small files in the formats that the picture data sets are published in."""

import gzip
import hashlib
import struct

import numpy as np
from scipy.io import savemat

TRAIN, TEST = 240, 60


def drawn(classes, channels, size, count, seed):
    """Return pictures (n, C, H, W) whose classes differ, and labels (n,)."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(count) % classes)
    faces = np.random.default_rng(99).integers(0, 200, (classes, channels, size, size))
    noise = draw.integers(0, 56, (count, channels, size, size))
    return (faces[labels] + noise).astype(np.uint8), labels


def write_mnist(root, folder="MNIST", *, compress=True, seed=1):
    place = root / folder / "raw"
    place.mkdir(parents=True)
    parts = {}
    for name, count, drawn_by in (("train", TRAIN, seed), ("t10k", TEST, 2)):
        pictures, labels = parts[name] = drawn(10, 1, 28, count, drawn_by)
        _write_idx(place / f"{name}-images-idx3-ubyte", pictures[:, 0], compress)
        _write_idx(place / f"{name}-labels-idx1-ubyte", labels.astype(np.uint8), compress)
    return list(parts.values())


def _write_idx(path, values, compress):
    # Two zero bytes, the type (8: unsigned byte), the number of dimensions, their sizes.
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    content = head + values.tobytes()
    if compress:
        path = path.with_name(f"{path.name}.gz")
        content = gzip.compress(content)
    path.write_bytes(content)


def write_cifar10(root):
    place = root / "cifar-10-batches-py"
    place.mkdir(parents=True)
    pictures, labels = drawn(10, 3, 32, TRAIN, 1)
    for number in range(5):
        part = slice(number * TRAIN // 5, (number + 1) * TRAIN // 5)
        content = {b"batch_label": b"training", b"labels": labels[part], b"data": pictures[part]}
        (place / f"data_batch_{number + 1}").write_bytes(python2_pickle(content))
    test = drawn(10, 3, 32, TEST, 2)
    content = {b"labels": test[1], b"data": test[0]}
    (place / "test_batch").write_bytes(python2_pickle(content))
    return [(pictures, labels), test]


def write_cifar100(root):
    place = root / "cifar-100-python"
    place.mkdir(parents=True)
    parts = []
    for name, count, seed in (("train", 600, 1), ("test", 200, 2)):
        pictures, labels = drawn(100, 3, 32, count, seed)
        content = {b"coarse_labels": labels // 5, b"fine_labels": labels, b"data": pictures}
        (place / name).write_bytes(python2_pickle(content))
        parts.append((pictures, labels))
    return parts


def python2_pickle(content):
    """Return a pickle as Python 2 wrote the published ones: protocol 2, strings of bytes."""
    out = b"\x80\x02}("
    for key, value in content.items():
        out += _string(key)
        if isinstance(value, bytes):
            out += _string(value)
        elif value.ndim == 1:
            out += b"](" + b"".join(b"K" + bytes([label]) for label in value) + b"e"
        else:
            rows = value.reshape(len(value), -1)
            shape = b"".join(b"J" + struct.pack("<i", size) for size in rows.shape) + b"\x86"
            out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            out += b"(K\x01" + shape + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
            out += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
            out += b"T" + struct.pack("<I", rows.size) + rows.tobytes() + b"tb"
    return out + b"u."


def _string(text):
    return b"U" + bytes([len(text)]) + text


def write_svhn(root, monkeypatch):
    """Write both files, and let torchvision expect their checksums."""
    from torchvision.datasets import SVHN

    root.mkdir(parents=True, exist_ok=True)
    expected, parts = dict(SVHN.split_list), []
    for name, count, seed in (("train", TRAIN, 1), ("test", TEST, 2)):
        pictures, labels = drawn(10, 3, 32, count, seed)
        path = root / f"{name}_32x32.mat"
        # The published files call the digit 0 ten, and have the samples last.
        ten = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(path, {"X": pictures.transpose(2, 3, 1, 0), "y": ten})
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        expected[name] = [expected[name][0], path.name, digest]
        parts.append((pictures, labels))
    monkeypatch.setattr(SVHN, "split_list", expected)
    return parts
