import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import metaloss
from metaloss import registry
from metaloss.errors import MetalossError
from metaloss.losses import MSE, ClassReduction, LearnedLoss, MLPLoss
from metaloss.losses.export import DESCRIPTION, WEIGHTS, describe, load_loss, pack
from metaloss.losses.mlp import Activation, MLPLossConfig, Output
from metaloss.types import Link

from .families import CASES, build, phi_of, rows


def _write(folder, loss, provenance=None):
    weights, description = pack(loss, phi_of(loss), provenance or {"task": "digits"})
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / DESCRIPTION).write_bytes(description)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Return a folder with an exported loss of 2·3 + 3 + 3 numbers."""
    return _write(tmp_path / "loss", build("mlp", hidden=[3]).float())


@pytest.fixture
def description(folder):
    """Return a function that changes one key of ``loss.json`` (None: takes it out)."""

    def change(key, value):
        content = json.loads((folder / DESCRIPTION).read_text())
        content[key] = value
        if value is None:
            del content[key]
        (folder / DESCRIPTION).write_text(json.dumps(content))

    return change


@pytest.fixture
def weights(folder):
    """Return a function that replaces φ by what it makes of φ."""

    def change(function):
        save_file(function(load_file(folder / WEIGHTS)), folder / WEIGHTS)

    return change


@pytest.mark.parametrize(("name", "link"), CASES)
def test_every_family_comes_back_bit_by_bit(name, link, tmp_path):
    loss = build(name, link).float()
    before = torch.get_rng_state()
    found = load_loss(_write(tmp_path, loss))
    assert torch.equal(torch.get_rng_state(), before)
    assert type(found) is type(loss)
    assert (found.family, found.link, found.config) == (name, link, loss.config)
    assert found.loaded
    assert not loss.loaded
    assert phi_of(found).keys() == phi_of(loss).keys()
    assert all(torch.equal(value, phi_of(loss)[key]) for key, value in phi_of(found).items())
    outputs, target = rows(link)
    outputs = outputs.float()
    assert torch.equal(found(outputs, target), loss(outputs, target))


@pytest.mark.parametrize(("name", "link"), CASES)
def test_a_loaded_loss_can_be_exported_and_compiled_by_torch(name, link, tmp_path):
    loss = load_loss(_write(tmp_path, build(name, link).float()))
    outputs, target = rows(link)
    outputs = outputs.float()
    target = target.float() if target.is_floating_point() else target
    expected = loss(outputs, target)
    exported = torch.export.export(loss, (outputs, target)).module()
    torch.testing.assert_close(exported(outputs, target), expected)
    torch.compiler.reset()
    # The front end is what can refuse a loss; the back end takes whatever it passes on.
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    moving = outputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(compiled(moving, target), moving)
    other = outputs.clone().requires_grad_()
    torch.testing.assert_close(slope, torch.autograd.grad(loss(other, target), other)[0])


def test_every_option_comes_back(tmp_path):
    config = MLPLossConfig(
        hidden=[4],
        activation=Activation.tanh,
        output=Output.softplus,
        bias=False,
        gamma=0.25,
        beta=3.0,
        class_reduction=ClassReduction.sum,
        class_offsets=3,
    )
    assert all(
        getattr(config, name) != getattr(MLPLossConfig(), name) for name in vars(MLPLossConfig())
    )
    assert load_loss(_write(tmp_path, MLPLoss(config, link="identity"))).config == config


def test_the_description_says_where_the_loss_was_learned(folder):
    content = json.loads((folder / DESCRIPTION).read_text())
    assert content["provenance"] == {"task": "digits"}
    assert (content["format"], content["family"], content["link"]) == (2, "mlp", "softmax")
    assert (content["ignore_index"], content["dtype"]) == (-100, "float32")


def test_a_file_of_the_first_format_is_read(folder, description):
    aim = load_loss(folder)
    for key, value in (("format", 1), ("ignore_index", None), ("dtype", None)):
        description(key, value)
    found = load_loss(folder)
    assert found.ignore_index == -100
    assert all(torch.equal(phi_of(aim)[key], value) for key, value in phi_of(found).items())


@pytest.mark.parametrize(("name", "link"), CASES)
def test_the_ignored_index_comes_back(name, link, tmp_path):
    loss = build(name, link).float()
    loss.ignore_index = 255
    assert load_loss(_write(tmp_path, loss)).ignore_index == 255


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_type_of_phi_comes_back(dtype, tmp_path):
    loss = build("mlp", hidden=[3]).to(dtype)
    found = load_loss(_write(tmp_path, loss))
    assert {value.dtype for value in found.parameters()} == {dtype}
    assert all(torch.equal(phi_of(loss)[key], value) for key, value in phi_of(found).items())


def test_parameters_of_two_types_cannot_be_exported():
    loss = build("mlp", hidden=[3]).float()
    loss.layers[0].double()
    with pytest.raises(MetalossError, match="several types, float32, float64: expected one"):
        describe(loss, {})


def test_a_file_of_the_folder_names_the_folder(folder):
    aim = phi_of(load_loss(folder))
    for place in (folder / WEIGHTS, str(folder / DESCRIPTION)):
        assert all(torch.equal(aim[key], value) for key, value in phi_of(load_loss(place)).items())


def test_a_class_that_is_not_registered_cannot_be_exported():
    class Mine(LearnedLoss):
        pass

    with pytest.raises(MetalossError, match="Mine is not registered"):
        describe(Mine(), {})


def test_a_loss_built_by_hand_is_exported_under_its_registered_name(monkeypatch):
    assert describe(MLPLoss(), {})["family"] == "mlp"
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    @metaloss.register("loss", "mine_for_export")
    class Mine(MSE):
        """Squared error under another name."""

    assert describe(Mine(), {})["family"] == "mine_for_export"


def test_the_part_called_load_is_the_loaded_family(folder):
    part = registry.get("loss", "load")
    loss = part.build(part.config_class(path=str(folder)), link=Link.softmax)
    assert type(loss) is MLPLoss
    assert loss.loaded
    assert describe(loss, {})["family"] == "mlp"
    with pytest.raises(
        MetalossError, match="a loss for link=softmax, expected one for the task's link=ident"
    ):
        part.build(part.config_class(path=str(folder)), link=Link.identity)
    with pytest.raises(
        MetalossError, match=r"loss=load without loss.path: expected loss.path=FOLDER"
    ):
        part.build(part.config_class(), link=Link.softmax)


# ----------------------------------------------------------------------------- bad descriptions


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 3, r"has format 3; this metaloss reads formats 1 and 2"),
        ("format", True, r"has format True; this metaloss reads formats 1 and 2"),
        ("format", None, "does not describe a loss: it has no 'format'"),
        ("family", "mpl", "unknown loss 'mpl': did you mean 'mlp'"),
        ("family", None, "'family' is missing or no str"),
        ("family", ["mlp"], "'family' is missing or no str"),
        ("family", "os.system", "unknown loss 'os.system'"),
        ("family", "load", "family 'load' names another file: refused"),
        ("link", "sofmax", "link 'sofmax' is unknown"),
        ("link", None, "'link' is missing or no str"),
        ("ignore_index", None, "'ignore_index' is missing or no int"),
        ("ignore_index", True, "'ignore_index' is missing or no int"),
        ("ignore_index", 2.0, "'ignore_index' is missing or no int"),
        ("dtype", "object", r"dtype 'object' is unknown \(allowed: float32"),
        ("dtype", None, "'dtype' is missing or no str"),
        ("options", None, "'options' is missing or no dict"),
        ("options", {"hiden": [3]}, "options do not fit 'mlp'.*hiden"),
        ("options", {"hidden": "three"}, "options do not fit 'mlp'"),
        ("options", {"hidden": ["${oc.env:HOME}"]}, "an option has an interpolation"),
        ("options", {"hidden": [3], "beta": -1.0}, "loss.beta=-1.0: expected a positive"),
        ("options", {"hidden": [3], "beta": float("nan")}, "loss.beta=nan: expected a positive"),
        ("options", {"activation": "system"}, "options do not fit 'mlp'"),
    ],
)
def test_a_bad_description_is_refused(folder, description, key, value, message):
    description(key, value)
    with pytest.raises(MetalossError, match=message) as caught:
        load_loss(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "{}}", "", "\x00", "NaN"])
def test_what_is_no_json_object_is_refused(folder, content):
    (folder / DESCRIPTION).write_text(content)
    with pytest.raises(MetalossError, match=r"is not JSON|does not describe a loss"):
        load_loss(folder)


def test_options_nested_too_deeply_are_refused(folder, description):
    (folder / DESCRIPTION).write_text(
        '{"format": 1, "family": "mlp", "link": "softmax", "options": {"hidden": %s}}'
        % ("[" * 900 + "]" * 900)
    )
    with pytest.raises(MetalossError, match=r"options|JSON"):
        load_loss(folder)


def test_a_huge_description_is_refused_unread(folder):
    (folder / DESCRIPTION).write_text(" " * 1_000_001)
    with pytest.raises(MetalossError, match="is larger than 1000000 bytes"):
        load_loss(folder)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / DESCRIPTION).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MetalossError, match="is not JSON"):
        load_loss(folder)


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(MetalossError, match=f"cannot read .*{name}"):
        load_loss(folder)


# -------------------------------------------------------------------------------- bad weights


def test_a_pickle_in_disguise_is_not_executed(folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return (shutil.copyfile, (str(folder / DESCRIPTION), str(tmp_path / "sprung")))

    (folder / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(MetalossError, match="cannot read"):
        load_loss(folder)
    torch.save({"layers.0.weight": Trap()}, folder / WEIGHTS)
    with pytest.raises(MetalossError, match="cannot read"):
        load_loss(folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_truncated_weights_are_refused(folder, kept):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:kept])
    with pytest.raises(MetalossError, match="cannot read"):
        load_loss(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda phi: {k: v for k, v in phi.items() if k != "layers.0.bias"}, "has parameters"),
        (
            lambda phi: {**phi, "layers.9.bias": torch.zeros(1)},
            r"layers.9.bias.*expected .* for 'mlp'",
        ),
        (
            lambda phi: {k: v[:, :1].clone() for k, v in phi.items() if v.dim() == 2},
            "has parameters",
        ),
        (
            lambda phi: {**phi, "layers.0.bias": torch.zeros(4)},
            r"'layers.0.bias' has shape \(4,\) and type torch.float32, expected \(3,\)",
        ),
        (
            lambda phi: {k: v.double() for k, v in phi.items()},
            "type torch.float64, expected .* torch.float32",
        ),
        (
            lambda phi: {**phi, "layers.0.bias": torch.tensor([0.0, float("nan"), 0.0])},
            "'layers.0.bias' has values that are NaN or infinite",
        ),
        (
            lambda phi: {**phi, "layers.0.bias": torch.tensor([0.0, float("inf"), 0.0])},
            "'layers.0.bias' has values that are NaN or infinite",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, weights, change, message):
    weights(change)
    with pytest.raises(MetalossError, match=message) as caught:
        load_loss(folder)
    assert WEIGHTS in str(caught.value)
