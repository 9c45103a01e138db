"""Which numbers people see while a run goes on, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_USUAL = ("train/loss", "meta/task_loss", "search/fitness", "search/rejected")
_COUNTS = ("search/rejected", "search/lost_workers")


def choose(latest: Mapping[str, float], wanted: Sequence[str] = ()) -> dict[str, float]:
    """Return the few numbers to show out of those last logged in a phase.

    Args:
        latest: Numbers by name.
        wanted: The names to show; empty for the usual ones: the learned loss and the task loss
            that judges it, the validation metric, a search's best fitness and how many candidates
            it rejected, or the first two where there are none of these.

    Example:
        >>> choose({"train/loss": 0.5, "train/task_loss": 2.3, "valid/task_loss": 1.0})
        {'train/loss': 0.5}
        >>> choose({"start/misfit": 0.1})
        {'start/misfit': 0.1}
    """
    if wanted:
        return {name: latest[name] for name in wanted if name in latest}
    metrics = [name for name in latest if name.startswith("valid/") and name != "valid/task_loss"]
    names = [name for name in (*_USUAL, *metrics) if name in latest] or list(latest)[:2]
    return {name: latest[name] for name in names}


def number(value: float) -> str:
    """Write a number so that a column of them lines up: four decimals where they say enough.

    Example:
        >>> [number(x) for x in (0.03125, 12.5, 0.00002, 123456.0, float("nan"))]
        ['0.0312', '12.5000', '2.00e-05', '1.23e+05', 'nan']
    """
    size = abs(value)
    return f"{value:.2e}" if size >= 1e4 or 0 < size < 1e-3 else f"{value:.4f}"


def line(numbers: Mapping[str, float]) -> str:
    """Write numbers with their names on one line.

    Example:
        >>> line({"train/loss": 0.5, "valid/error": 0.25, "search/rejected": 7.0})
        'train/loss 0.5000  valid/error 0.2500  search/rejected 7'
    """
    return "  ".join(
        f"{name} {value:.0f}" if name in _COUNTS else f"{name} {number(value)}"
        for name, value in numbers.items()
    )


def clock(seconds: float | None) -> str:
    """Write a duration as h:mm:ss, dashes where it is not known.

    Example:
        >>> clock(3725.4), clock(None)
        ('1:02:05', '-:--:--')
    """
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
