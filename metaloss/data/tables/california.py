"""House values in California."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.datasets import fetch_california_housing, get_data_home

from metaloss.data.files import download
from metaloss.data.tables.named_table import NamedTable


@dataclass(frozen=True, kw_only=True)
class CaliforniaHousing(NamedTable):
    """California housing: 20,640 districts, eight measurements, the median house value.

    Inputs (B, 8), standardised; targets (B, 1). The rows come from ``task.path``, a CSV file with a
    column ``MedHouseVal`` or ``median_house_value``; without a path, from scikit-learn's cache.

    Reference:
        Pace & Barry, "Sparse Spatial Autoregressions", Statistics & Probability Letters, 1997.
    """

    title: ClassVar[str] = "california_housing"
    about: ClassVar[str] = (
        "median house value of a district; mse: in units of the variance of the training targets "
        "before corruption"
    )
    targets: ClassVar[tuple[str, ...]] = ("MedHouseVal", "median_house_value")

    def cached(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the rows in scikit-learn's cache."""
        if self.download:
            download(self.title, fetch_california_housing, by_hand=self.by_hand)
        try:
            table = fetch_california_housing(download_if_missing=False)
        except OSError as error:
            where = f"not in scikit-learn's cache {get_data_home()}"
            raise self.missing(where) from error
        columns = dict(zip(table.feature_names, table.data.T.astype(np.float64), strict=True))
        return pd.DataFrame(columns), table.target.astype(np.float64)[:, None]
