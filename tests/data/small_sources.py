"""Three tasks that need no file, made quickly."""

import pytest
import torch

from metaloss.data.images.digits import Digits
from metaloss.data.sequences.mnist1d import MNIST1D
from metaloss.data.tables.diabetes import Diabetes

SOURCES = {"digits": Digits, "diabetes": Diabetes, "mnist1d": MNIST1D}
OPTIONS = {"digits": {}, "diabetes": {}, "mnist1d": {"samples": 600}}
each_source = pytest.mark.parametrize("name", SOURCES)


def make(name, **options):
    return SOURCES[name](**OPTIONS[name], **options)


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
