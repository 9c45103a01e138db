import json

import pytest
import torch

import metaloss
from metaloss import registry
from metaloss.errors import MetalossError
from metaloss.losses import MSE, ClassReduction, LearnedLoss, MLPLoss
from metaloss.losses.export import DESCRIPTION, WEIGHTS, describe, load_loss
from metaloss.losses.mlp import Activation, MLPLossConfig, Output
from metaloss.types import Link

from .conftest import write_export
from .families import CASES, build, phi_of, rows


@pytest.mark.parametrize(("name", "link"), CASES)
def test_every_family_comes_back_bit_by_bit(name, link, tmp_path):
    loss = build(name, link).float()
    before = torch.get_rng_state()
    found = load_loss(write_export(tmp_path, loss))
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
    loss = load_loss(write_export(tmp_path, build(name, link).float()))
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
        inputs=["target", "prediction", "rank", "memory"],
        decay=0.5,
    )
    assert all(
        getattr(config, name) != getattr(MLPLossConfig(), name) for name in vars(MLPLossConfig())
    )
    assert load_loss(write_export(tmp_path, MLPLoss(config, link="identity"))).config == config


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
    assert load_loss(write_export(tmp_path, loss)).ignore_index == 255


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_type_of_phi_comes_back(dtype, tmp_path):
    loss = build("mlp", hidden=[3]).to(dtype)
    found = load_loss(write_export(tmp_path, loss))
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
