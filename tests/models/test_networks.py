"""The convolutional networks of the literature: their published sizes, and what they compute."""

import pytest
import torch
from torch import nn

from metaloss import registry
from metaloss.errors import MetalossError

from .literature import RICH, built, count, drawn

# (model, options, shape of a row, outputs, parameters, where the number is from).
PUBLISHED = [
    # The common count of LeNet-5 without C3's table: 156 + 2,416 + 48,120 + 10,164 + 850.
    ("lenet5", {}, (1, 32, 32), 10, 61_706),
    ("lenet5", {}, (1, 28, 28), 10, 61_706),
    # The network known as kuangliu/pytorch-cifar's ResNet18.
    ("resnet18", {}, (3, 32, 32), 10, 11_173_962),
    # torchvision's resnet18 has 11,689,512; its 7×7 stem has 9,408 weights where 3×3 has 1,728.
    ("resnet18", {}, (3, 32, 32), 1000, 11_689_512 - 9_408 + 1_728),
]


@pytest.mark.parametrize(("name", "options", "shape", "outputs", "expected"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(name, options, shape, outputs, expected):
    with torch.device("meta"):
        assert count(built(name, options, shape, outputs)) == expected


def test_lenet5_puts_small_pictures_into_the_middle_of_a_field():
    model = built("lenet5", {}, (1, 28, 27)).double()
    whole = built("lenet5", {}, (1, 32, 32)).double()
    inputs, field = drawn(3, 1, 28, 27), torch.zeros(3, 1, 32, 32, dtype=torch.float64)
    field[:, :, 2:30, 2:29] = inputs
    torch.testing.assert_close(model(inputs), whole(field), rtol=0, atol=0)
    assert (model(inputs) - whole(field.roll(1, -1))).abs().max() > 1e-4


def test_lenet5_takes_larger_pictures_as_they_are():
    model = built("lenet5", {}, (3, 40, 36))
    assert model(torch.zeros(2, 3, 40, 36)).shape == (2, 3)
    # 40 → 36 → 18 → 14 → 7 and 36 → 32 → 16 → 12 → 6.
    assert model.body[7].in_features == 16 * 7 * 6


def test_resnet18_computes_what_torchvisions_does_with_the_stem_of_cifar():
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = resnet18(num_classes=3).double()
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False).double()
    reference.maxpool = nn.Identity()
    ours = built("resnet18", {}, (3, 9, 8)).double()
    # torchvision registers the shortcut behind the body, as we do.
    ours.load_state_dict(dict(zip(ours.state_dict(), reference.state_dict().values(), strict=True)))
    inputs = drawn(2, 3, 9, 8)
    torch.testing.assert_close(ours(inputs), reference(inputs))  # in train mode
    torch.testing.assert_close(ours.eval()(inputs), reference.eval()(inputs))
    assert ours(inputs).std() > 1e-3


@pytest.mark.parametrize("name", [name for name in RICH if name not in ("gpt", "vit")])
@pytest.mark.parametrize("shape", [(8,), (3, 8), (3, 0, 8), (1, 1, 8, 8)])
def test_rows_that_are_no_pictures_are_refused(name, shape):
    with pytest.raises(MetalossError, match=rf"^model={name}: input_shape=\(.*\): expected pict"):
        built(name, {}, shape)


@pytest.mark.parametrize("name", RICH)
def test_a_model_without_outputs_is_refused(name):
    message = f"^model={name}: outputs=0: expected a whole number, at least 1$"
    with pytest.raises(MetalossError, match=message):
        built(name, {}, RICH[name].shape, outputs=0)


BAD_OPTIONS = [
    ("resnet18", {"width": 0}, "model.width=0: expected a whole number, at least 1"),
    ("gpt", {"layers": 0}, "model.layers=0: expected a whole number, at least 1"),
    ("gpt", {"dropout": 1.0}, "model.dropout=1.0: expected a number ≥ 0 and < 1"),
    ("gpt", {"heads": 3}, "model.heads=3 with width=128: expected a divisor of the width"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_options_out_of_range_are_named_with_the_range(name, options, message):
    with pytest.raises(MetalossError) as error:
        registry.get("model", name).config_class(**options)
    assert str(error.value) == message
