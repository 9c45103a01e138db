"""The picture data sets by their names."""

import pytest

from metaloss.data.images.cifar import CIFAR10, CIFAR100
from metaloss.data.images.mnist import MNIST, FashionMNIST
from metaloss.data.images.svhn import SVHN

SOURCES = {
    "mnist": MNIST,
    "fashion_mnist": FashionMNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "svhn": SVHN,
}
each_source = pytest.mark.parametrize("name", SOURCES)
