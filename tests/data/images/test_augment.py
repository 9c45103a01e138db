import pytest
import torch
from torch.nn.functional import pad

from metaloss.data.augment import CropFlipCutout

CASES = [
    {"padding": 2},
    {"padding": 4, "flip": True},
    {"flip": True},
    {"cutout": 3},
    {"padding": 1, "flip": True, "cutout": 4},
    {"padding": 9, "cutout": 20},
]


def pictures(count=60, channels=3, height=7, width=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def one_by_one(augment, inputs, key):
    """The same, told plainly: pad, cut out a window, mirror, cover a square."""
    count, _, height, width = inputs.shape
    draws = augment.draws(key, count, height, width).T.tolist()
    made = []
    for picture, (down, across, mirror, top, left) in zip(inputs, draws, strict=True):
        p = augment.padding
        wide = pad(picture, (p, p, p, p))
        picture = wide[:, p + down : p + down + height, p + across : p + across + width].clone()
        if mirror:
            picture = picture.flip(-1)
        if augment.cutout:
            y, x = top - augment.cutout // 2, left - augment.cutout // 2
            rows, columns = (
                slice(max(y, 0), y + augment.cutout),
                slice(max(x, 0), x + augment.cutout),
            )
            if y + augment.cutout > 0 and x + augment.cutout > 0:
                picture[:, rows, columns] = 0
        made.append(picture)
    return torch.stack(made)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_a_plain_loop_over_the_samples(options):
    augment, inputs, key = CropFlipCutout(**options), pictures(), torch.tensor(12345678901)
    made = augment(inputs, key)
    assert torch.equal(made, one_by_one(augment, inputs, key))
    assert not torch.equal(made, inputs)


def test_draws_are_uniform_over_their_ranges_and_independent():
    count = 60_000
    draws = CropFlipCutout(padding=2, flip=True, cutout=3).draws(torch.tensor(1), count, 4, 6)
    ranges = [(-2, 2), (-2, 2), (0, 1), (0, 3), (0, 5)]
    for values, (low, high) in zip(draws, ranges, strict=True):
        assert (int(values.min()), int(values.max())) == (low, high)
        shares = torch.bincount(values - low) / count
        # A spread of about √(share / count) < 0.003.
        assert (shares - 1 / (high - low + 1)).abs().max() < 0.012
    correlation = torch.corrcoef(draws.double()) - torch.eye(5)
    assert correlation.abs().max() < 0.02


def test_another_key_gives_other_pictures_and_every_picture_its_own():
    augment, inputs = CropFlipCutout(padding=4, flip=True), pictures(1).expand(200, -1, -1, -1)
    first, second = augment(inputs, torch.tensor(3)), augment(inputs, torch.tensor(4))
    assert not torch.equal(first, second)
    assert len({row.numpy().tobytes() for row in first}) > 50


def test_vmapped_and_traced_code_draws_the_same():
    augment, inputs = CropFlipCutout(padding=2, flip=True, cutout=2), pictures(12)
    keys = torch.tensor([3, 2**62 + 5, 77])
    alone = torch.stack([augment(inputs, key) for key in keys])
    assert torch.equal(torch.func.vmap(augment, in_dims=(None, 0))(inputs, keys), alone)
    traced = torch.fx.experimental.proxy_tensor.make_fx(augment)(inputs, keys[0])
    assert torch.equal(traced(inputs, keys[1]), alone[1])


def test_no_argument_and_no_global_state_is_changed():
    inputs, key = pictures(), torch.tensor(3)
    before, state = inputs.clone(), torch.get_rng_state()
    CropFlipCutout(padding=2, flip=True, cutout=2)(inputs, key)
    assert torch.equal(inputs, before)
    assert torch.equal(torch.get_rng_state(), state)
