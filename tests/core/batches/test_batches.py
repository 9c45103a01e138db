import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloss.core.batches.streams import BatchStream, concatenated
from metaloss.types import Batch


def _rows(count):
    return Batch(torch.arange(count).float().unsqueeze(1), torch.arange(count))


def _stream(count=10, size=3, seed=0, purpose="train"):
    return BatchStream(_rows(count), size=size, seed=seed, purpose=purpose)


def _numbers(stream, places):
    return [stream[place].targets.tolist() for place in places]


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 2**40))
def test_an_epoch_holds_each_row_at_most_once_and_leaves_out_less_than_a_batch(count, size, seed):
    stream = _stream(count, size, seed)
    size = min(size, count)
    per_epoch = count // size
    for epoch in range(3):
        batches = _numbers(stream, range(epoch * per_epoch, (epoch + 1) * per_epoch))
        assert {len(batch) for batch in batches} == {size}
        seen = [row for batch in batches for row in batch]
        assert len(seen) == len(set(seen)) == per_epoch * size
        assert count - len(seen) < size


def test_batches_are_addressed_by_number_in_any_order():
    forwards = _numbers(_stream(), range(12))
    stream = _stream()
    assert _numbers(stream, reversed(range(12))) == forwards[::-1]
    assert _numbers(stream, [7, 2, 7]) == [forwards[7], forwards[2], forwards[7]]


def test_inputs_and_targets_stay_together():
    for place in range(6):
        batch = _stream()[place]
        assert torch.equal(batch.inputs[:, 0].long(), batch.targets)


def test_epochs_seeds_and_purposes_differ():
    first = _numbers(_stream(), range(3))
    assert _numbers(_stream(), range(3, 6)) != first
    assert _numbers(_stream(seed=1), range(3)) != first
    assert _numbers(_stream(purpose="meta/train"), range(3)) != first
    assert _numbers(_stream(), range(3)) == first


def test_every_row_comes_equally_often_in_the_long_run():
    counts = torch.zeros(10)
    for place in range(1000):
        counts[_stream_of_ten[place].targets] += 1
    # 1,000 epochs of 9 of 10 rows: 900 each, a spread of about √(1000 · 0.1 · 0.9) / 3.
    assert counts.sum() == 3000
    assert (counts - 300).abs().max() < 30


_stream_of_ten = _stream()


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    _ = _stream()[5]
    assert torch.equal(torch.get_rng_state(), before)


def test_concatenated_rows_are_both():
    both = concatenated(_rows(3), _rows(2))
    assert both.targets.tolist() == [0, 1, 2, 0, 1]
    assert both.inputs.shape == (5, 1)
