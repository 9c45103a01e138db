"""The convolutional networks of the literature: their published sizes, and what they compute."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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
    # The VGG16 of kuangliu/pytorch-cifar has 14,728,266; ours no biases before its normalisations.
    ("vgg16", {}, (3, 32, 32), 10, 14_728_266 - 4_224),
    # The common count; the paper gives about 1.4 M.
    ("allcnnc", {}, (3, 32, 32), 10, 1_369_738),
    # torchvision's squeezenet1_1, from the table of its weights.
    ("squeezenet", {}, (3, 32, 32), 1000, 1_235_496),
    # timm's vit_tiny_patch16_224, and torchvision's vit_b_16 from the table of its weights.
    (
        "vit",
        {"layers": 12, "width": 192, "heads": 3, "patch": 16},
        (3, 224, 224),
        1000,
        5_717_416,
    ),
    (
        "vit",
        {"layers": 12, "width": 768, "heads": 12, "patch": 16},
        (3, 224, 224),
        1000,
        86_567_656,
    ),
    # OpenAI's 124M weights of GPT-2: 50,257 tokens, 1,024 positions.
    ("gpt", {"layers": 12, "width": 768, "heads": 12}, (1024,), 50_257, 124_439_808),
    # torchvision's resnet18 has 11,689,512; its 7×7 stem has 9,408 weights where 3×3 has 1,728.
    ("resnet18", {}, (3, 32, 32), 1000, 11_689_512 - 9_408 + 1_728),
]


@pytest.mark.parametrize(("name", "options", "shape", "outputs", "expected"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(name, options, shape, outputs, expected):
    with torch.device("meta"):
        assert count(built(name, options, shape, outputs)) == expected


@pytest.mark.parametrize(
    ("depth", "widen", "outputs", "millions"),
    # As the paper's tables give them; those of SVHN have ten outputs as well.
    [(28, 10, 10, 36.5), (16, 8, 10, 11.0), (40, 4, 10, 8.9), (28, 10, 100, 36.5)],
)
def test_wide_networks_have_the_published_millions(depth, widen, outputs, millions):
    with torch.device("meta"):
        found = count(built("wrn", {"depth": depth, "widen": widen}, (3, 32, 32), outputs))
    total, before, more = 3 * 16 * 9, 16, (depth - 4) // 6 - 1
    for after in (16 * widen, 32 * widen, 64 * widen):
        total += 2 * (before + after) + 9 * after * (before + after) + before * after
        total += more * (4 * after + 18 * after**2)
        before = after
    assert found == total + 2 * before + (before + 1) * outputs
    assert round(found / 1e6, 1) == millions


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


def test_vgg16_computes_what_torchvisions_does():
    from torchvision.models import vgg16_bn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = vgg16_bn(init_weights=False).features.double()
    ours = built("vgg16", {}, (3, 32, 32)).double()
    convolutions = [part for part in features if isinstance(part, nn.Conv2d)]
    for part in convolutions:
        part.register_parameter("bias", None)
    ours.body.load_state_dict(features.state_dict())
    inputs = drawn(2, 3, 32, 32)
    assert len(convolutions) == 13
    torch.testing.assert_close(ours(inputs), ours.head(features(inputs).flatten(1)))
    assert ours(inputs).std() > 1e-3


def test_allcnnc_comes_down_to_six_by_six_and_may_be_negative():
    model = built("allcnnc", {"dropout_input": 0.0, "dropout": 0.0}, (3, 32, 32)).double()
    inputs = drawn(2, 3, 32, 32)
    weights, values = list(model.parameters()), inputs
    for index, (stride, padding) in enumerate(
        [(1, 1), (1, 1), (2, 1), (1, 1), (1, 1), (2, 1), (1, 0), (1, 0)]
    ):
        weight, bias = weights[2 * index : 2 * index + 2]
        values = F.relu(F.conv2d(values, weight, bias, stride=stride, padding=padding))
    assert values.shape == (2, 192, 6, 6)
    expected = torch.einsum("bihw,oi->bo", values, weights[-2][:, :, 0, 0]) / 36 + weights[-1]
    torch.testing.assert_close(model(inputs), expected)
    assert expected.min() < -1e-2


def test_squeezenet_computes_what_torchvisions_does_at_full_size():
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = squeezenet1_1(num_classes=3).double().eval()
    reference.features[0].stride, reference.features[0].padding = (1, 1), (1, 1)
    reference.classifier[2] = nn.Identity()  # the ReLU on the outputs
    ours = built("squeezenet", {}, (3, 32, 32)).double().eval()
    for own, theirs in zip(ours.parameters(), reference.parameters(), strict=True):
        own.data = theirs.data.view_as(own)
    inputs = drawn(2, 3, 32, 32)
    torch.testing.assert_close(ours(inputs), reference(inputs))
    assert ours(inputs).std() > 1e-3


def test_wrn_computes_the_papers_blocks():
    """Written out as in the authors' code: o1 = relu(norm(x)) enters body and shortcut."""
    model = built("wrn", {"depth": 10, "widen": 2}, (3, 8, 8)).double()
    inputs, state = drawn(4, 3, 8, 8), dict(model.named_parameters())

    def norm(name, x):
        scale, shift = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.relu(F.batch_norm(x, None, None, scale, shift, training=True))

    x = F.conv2d(inputs, state["stem.weight"], padding=1)
    for index, stride in enumerate([1, 2, 2]):
        block = f"blocks.{index}"
        o1 = norm(f"{block}.enter.0", x)
        o2 = F.conv2d(o1, state[f"{block}.body.0.weight"], stride=stride, padding=1)
        o2 = F.conv2d(norm(f"{block}.body.1", o2), state[f"{block}.body.3.weight"], padding=1)
        x = o2 + F.conv2d(o1, state[f"{block}.shortcut.weight"], stride=stride)
    expected = F.linear(norm("norm", x).mean((2, 3)), state["head.weight"], state["head.bias"])
    torch.testing.assert_close(model(inputs), expected)
    assert expected.std() > 1e-3


@pytest.mark.parametrize(
    ("name", "shape", "least"), [("allcnnc", (3, 8, 32), "9×9"), ("squeezenet", (3, 7, 7), "8×8")]
)
def test_pictures_that_are_too_small_are_refused(name, shape, least):
    expected = rf"input_shape=\(.*\): expected images \(channels, H, W\) of at least {least}$"
    with pytest.raises(MetalossError, match=expected):
        built(name, {}, shape)


def test_patches_must_tile_the_picture():
    message = r"^model\.patch=4 with input_shape=\(3, 8, 9\): expected a divisor of H and W$"
    with pytest.raises(MetalossError, match=message):
        built("vit", {}, (3, 8, 9))


@pytest.mark.parametrize("name", [name for name in RICH if name != "gpt"])
@pytest.mark.parametrize("shape", [(8,), (3, 8), (3, 0, 8), (1, 1, 8, 8)])
def test_rows_that_are_no_pictures_are_refused(name, shape):
    with pytest.raises(MetalossError, match=rf"^model={name}: input_shape=\(.*\): expected images"):
        built(name, {}, shape)


@pytest.mark.parametrize("name", RICH)
def test_a_model_without_outputs_is_refused(name):
    message = f"^model={name}: outputs=0: expected a whole number, at least 1$"
    with pytest.raises(MetalossError, match=message):
        built(name, {}, RICH[name].shape, outputs=0)


BAD_OPTIONS = [
    ("resnet18", {"width": 0}, "model.width=0: expected a whole number, at least 1"),
    ("vgg16", {"width": 1.5}, "model.width=1.5: expected a whole number, at least 1"),
    ("allcnnc", {"dropout_input": 1}, "model.dropout_input=1: expected a number in [0, 1)"),
    ("allcnnc", {"dropout": -1}, "model.dropout=-1: expected a number in [0, 1)"),
    ("squeezenet", {"dropout": 1}, "model.dropout=1: expected a number in [0, 1)"),
    (
        "wrn",
        {"depth": 18},
        "model.depth=18: expected 10, 16, 22, 28, ...: 4 more than a multiple of 6",
    ),
    ("wrn", {"widen": 0}, "model.widen=0: expected a whole number, at least 1"),
    ("vit", {"patch": 0}, "model.patch=0: expected a whole number, at least 1"),
    ("gpt", {"layers": 0}, "model.layers=0: expected a whole number, at least 1"),
    ("gpt", {"dropout": 1.0}, "model.dropout=1.0: expected a number in [0, 1)"),
    ("gpt", {"heads": 3}, "model.heads=3 with width=128: expected a divisor of the width"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_options_out_of_range_are_named_with_the_range(name, options, message):
    with pytest.raises(MetalossError) as error:
        registry.get("model", name).config_class(**options)
    assert str(error.value) == message
