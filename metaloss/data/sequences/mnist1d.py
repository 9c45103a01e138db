"""MNIST-1D: ten one-dimensional shapes, shifted, scaled, sheared and with noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np

from metaloss.data.number_source import ClassificationSource
from metaloss.errors import check_whole
from metaloss.inner.model.randomness import seeded, sources


@dataclass(frozen=True, kw_only=True)
class MNIST1D(ClassificationSource):
    """MNIST-1D: generated signals of 40 values, ten classes.

    Inputs (B, 40), standardised by all values of the training rows together. The rows are the
    published ones, as the generator's seed is fixed; the seed determines the split. The first build
    in a process takes about two seconds.

    Reference:
        Greydanus & Kobak, "Scaling Down Deep Learning with MNIST-1D", ICML 2024.

    Example:
        >>> MNIST1D(samples=500).build(seed=0).train.inputs.shape
        torch.Size([300, 40])
    """

    samples: int = field(
        default=5000, metadata={"help": "rows to generate: training, validation and test together"}
    )

    title: ClassVar[str] = "mnist1d"
    about: ClassVar[str] = "signals of 40 values, ten classes; error: share of wrong classes"
    classes: ClassVar[int] = 10
    per_feature: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("task.samples", self.samples, 100)

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Return signals (n, 40) and labels (n,). n is ``samples``, rounded down to tens."""
        return _generate(self.samples)


@lru_cache(maxsize=2)
def _generate(samples: int) -> tuple[np.ndarray, np.ndarray]:
    # Imported here, because the package imports pyplot. Its ``get_dataset`` is not used, because it
    # downloads and unpickles.
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = samples
    with seeded(sources(()), arguments.seed):  # the package seeds the global generators
        made = make_dataset(arguments)
    inputs = np.concatenate([made["x"], made["x_test"]]).astype(np.float64)
    labels = np.concatenate([made["y"], made["y_test"]]).astype(np.int64)
    for array in (inputs, labels):
        array.setflags(write=False)
    return inputs, labels
