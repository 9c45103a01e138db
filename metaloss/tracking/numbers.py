"""Which numbers are shown during a run, and their format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# The values of a learned loss mean little by themselves: the task loss is before it.
_USUAL = ("meta/task_loss", "train/loss", "search/fitness", "search/rejected")
_COUNTS = ("search/rejected", "search/lost_workers")


def choose(latest: Mapping[str, float], wanted: Sequence[str] = ()) -> dict[str, float]:
    """Return the numbers to show, those that matter most first.

    Args:
        latest: The last numbers of the phase, by name.
        wanted: The names to show. Empty: the validation metric, the task loss on the meta-batch,
            the learned loss, a search's best fitness and its number of rejected candidates; or the
            first two numbers if there are none of these.

    Example:
        >>> choose({"train/loss": 0.5, "train/task_loss": 2.3, "valid/task_loss": 1.0})
        {'train/loss': 0.5}
        >>> choose({"start/misfit": 0.1})
        {'start/misfit': 0.1}
    """
    if wanted:
        return {name: latest[name] for name in wanted if name in latest}
    metrics = [name for name in latest if name.startswith("valid/") and name != "valid/task_loss"]
    names = [name for name in (*metrics, *_USUAL) if name in latest] or list(latest)[:2]
    return {name: latest[name] for name in names}


def number(value: float) -> str:
    """Return a number as text: with four decimals, or in scientific notation.

    Example:
        >>> [number(x) for x in (0.03125, 12.5, 0.00002, 123456.0, float("nan"))]
        ['0.0312', '12.5000', '2.00e-05', '1.23e+05', 'nan']
    """
    size = abs(value)
    return f"{value:.2e}" if size >= 1e4 or 0 < size < 1e-3 else f"{value:.4f}"


def line(numbers: Mapping[str, float]) -> str:
    """Return numbers with their names on one line.

    Example:
        >>> line({"train/loss": 0.5, "valid/error": 0.25, "search/rejected": 7.0})
        'train/loss 0.5000  valid/error 0.2500  search/rejected 7'
    """
    return "  ".join(
        f"{name} {value:.0f}" if name in _COUNTS else f"{name} {number(value)}"
        for name, value in numbers.items()
    )


def fitted(place: str, numbers: Sequence[str], times: Sequence[str], width: int) -> str:
    """Return a line of at most ``width`` characters, without what does not fit.

    Args:
        place: The beginning of the line, always there.
        numbers: Numbers as text, those that matter most first.
        times: Times as text, likewise. The first one matters more than the second number.
        width: The width.

    Example:
        >>> fitted("train 5/9", ["a/b 0.5", "c/d 2.0"], ["ETA 4", "8 steps/s"], 36)
        'train 5/9  a/b 0.5  c/d 2.0  (ETA 4)'
    """
    text, shown = place, set[str]()
    for one in (*numbers[:1], *times[:1], *numbers[1:], *times[1:]):
        kept = [time for time in reversed(times) if time in {*shown, one}]
        spent = [f"({', '.join(kept)})"] if kept else []
        longer = [place, *(number for number in numbers if number in {*shown, one}), *spent]
        if len(joined := "  ".join(longer)) <= width:
            text, shown = joined, {*shown, one}
    return text


def clock(seconds: float | None) -> str:
    """Return a duration as h:mm:ss; with dashes if it is not known.

    Example:
        >>> clock(3725.4), clock(None)
        ('1:02:05', '-:--:--')
    """
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
