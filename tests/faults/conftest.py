"""What every test of faults begins with."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_signal_is_ignored() -> Iterator[None]:
    """Hear what a program before this one, such as nohup, may have chosen to ignore."""
    numbers = (signal.SIGHUP, signal.SIGUSR1)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
