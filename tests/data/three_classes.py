"""Sixty rows of three classes, and the one line with which rows are refused."""

import pytest
import torch

from metaloss.data import TaskOptions, task_from_data
from metaloss.errors import MetalossError

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


def error_of(*rows, **options):
    with pytest.raises(MetalossError) as error:
        task_from_data(*rows, options=TaskOptions(**options) if options else None)
    assert "\n" not in str(error.value)
    return str(error.value)
