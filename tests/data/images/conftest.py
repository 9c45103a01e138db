"""Files of picture data sets, written small."""

import pytest

from metaloss.data.images import mnist

from .published import write_cifar10, write_cifar100, write_mnist, write_svhn
from .sources import SOURCES


@pytest.fixture(autouse=True)
def system(tmp_path, monkeypatch):
    """Return the folder that is taken for the system's: it is not there."""
    monkeypatch.setattr(mnist, "SYSTEM", tmp_path / "system")
    return tmp_path / "system"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return a function: by a name, the source over small files and what is in them."""

    def write(name, **options):
        writers = {
            "mnist": write_mnist,
            "fashion_mnist": lambda root: write_mnist(root, "FashionMNIST"),
            "cifar10": write_cifar10,
            "cifar100": write_cifar100,
            "svhn": lambda root: write_svhn(root, monkeypatch),
        }
        root = tmp_path / "files"
        known = [] if root.exists() else writers[name](root)
        return SOURCES[name](root=str(root), **options), known

    return write
