"""What the tests of inner optimizers share."""

import pytest

from .optimizer_pairs import PAIRS


@pytest.fixture(params=PAIRS)
def pair(request):
    return PAIRS[request.param]
