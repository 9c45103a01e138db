"""torchvision's classifiers by name: their heads, weights from files, frozen parts."""

import shutil
import warnings
import zipfile

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import metaloss
import metaloss.models.pretrained.torchvision as torchvision_model
from metaloss.errors import MetalossError
from metaloss.models.pretrained.state_dict import read_weights
from metaloss.models.pretrained.torchvision import Torchvision as Model
from metaloss.models.pretrained.torchvision import TorchvisionConfig, TrainOnly

SHAPE = (3, 16, 16)


def network(name="resnet18", classes=10):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = torchvision.models.get_model(name, weights=None, num_classes=classes)
        for part in made.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.1, 0.1)
    return made


def made(outputs=4, shape=SHAPE, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Model(TorchvisionConfig(**options), input_shape=shape, outputs=outputs)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.pt"
    torch.save(network().state_dict(), path)
    return str(path)


def pictures(count=6, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, 16, 16, generator=generator)


def test_weights_of_the_same_form_give_the_network_s_own_outputs(weights):
    model = made(outputs=10, network="resnet18", weights=weights).eval()
    expected = network().eval()(pictures())
    assert torch.equal(model(pictures()), expected)
    grey = made(outputs=10, shape=(1, 16, 16), network="resnet18", weights=weights).eval()
    one = pictures(channels=1)
    assert torch.equal(grey(one), network().eval()(one.repeat(1, 3, 1, 1)))
    assert expected.std() > 0.01


def test_a_head_of_another_size_is_new_and_said_once(weights):
    torchvision_model._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=r"last layer is new, .*: fc.bias, fc.weight"):
        model = made(network="resnet18", weights=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(network="resnet18", weights=weights)
    assert model.head_name == "fc"
    own, other = model.network.state_dict(), network().state_dict()
    same = [name for name in own if own[name].shape == other[name].shape]
    assert len(same) == len(own) - 2
    assert all(torch.equal(own[name], other[name]) for name in same)
    assert model(pictures()).shape == (6, 4)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_other_networks_have_a_head_for_the_task(name):
    model = made(network=name, shape=(3, 32, 32))
    assert model(torch.randn(3, 3, 32, 32)).shape == (3, 4)
    head = list(model.head.parameters())
    assert head[0].shape[0] == 4


def test_safetensors_and_files_of_training_scripts_are_read(weights, tmp_path):
    state = network().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    inside = {"epoch": 3, "state_dict": {f"module.{name}": v for name, v in state.items()}}
    torch.save(inside, tmp_path / "b.pth")
    for path in (tmp_path / "a.safetensors", tmp_path / "b.pth"):
        found = read_weights(path)
        assert set(found) == set(state)
        assert all(torch.equal(found[name], state[name]) for name in state)


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_files_that_do_not_serve_are_refused_in_one_line(weights, tmp_path, capsys):
    def refused(path, **options):
        with pytest.raises(MetalossError) as said:
            made(weights=str(path), **{"network": "resnet18", **options})
        assert "\n" not in str(said.value)
        return str(said.value)

    assert "no such file" in refused(tmp_path / "no.pt")
    torch.save({"fc.weight": Harmful()}, tmp_path / "bad.pt")
    assert "something other than tensors" in refused(tmp_path / "bad.pt")
    assert capsys.readouterr().out == ""
    (tmp_path / "text.pt").write_text("hello")
    assert "expected a state_dict" in refused(tmp_path / "text.pt")
    (tmp_path / "text.safetensors").write_text("hello")
    assert "cannot be read" in refused(tmp_path / "text.safetensors")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as file:
        file.writestr("a", "b")
    assert "zip.pt" in refused(tmp_path / "zip.pt")
    assert "expected the weights of model.network=resnet34" in refused(weights, network="resnet34")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "names with tensors" in refused(tmp_path / "list.pt")


def test_names_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(MetalossError, match=r"unknown model.network 'resnet81': did you mean"):
        made(network="resnet81")
    with pytest.raises(MetalossError, match="2 channels; expected 1 or 3"):
        made(shape=(2, 16, 16))
    with pytest.raises(MetalossError, match="expected images"):
        made(shape=(16,))
    with pytest.raises(MetalossError, match=r"train_only=head: expected model.weights=FILE too"):
        TorchvisionConfig(train_only=TrainOnly.head)
    with pytest.raises(MetalossError, match=r"model.network=vit_b_16: "):
        made(network="vit_b_16", shape=(3, 17, 17))


def frozen(weights):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made(network="resnet18", weights=weights, train_only=TrainOnly.head)


def test_frozen_parts_have_no_gradient_and_stay_in_evaluation_mode(weights):
    model = frozen(weights).train()
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained == ["network.fc.weight", "network.fc.bias"]
    assert [name for name, part in model.named_modules() if part.training] == ["", "network.fc"]
    assert not any(part.training for part in model.eval().modules())


def test_a_learner_gives_what_it_gives_on_the_same_frozen_network(weights):
    model, plain = frozen(weights), network()
    plain.fc = nn.Linear(512, 4)
    plain.fc.load_state_dict(model.head.state_dict())
    plain.requires_grad_(False).eval()
    plain.fc.requires_grad_().train()
    batch = pictures(), torch.arange(6) % 4
    meta = pictures().flip(0), torch.arange(6) % 3
    found = []
    for one in (model, plain):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loss = metaloss.MLPLoss()
        learner = metaloss.Learner(
            one, loss, task_loss=nn.functional.cross_entropy, inner=metaloss.SGD(lr=0.1)
        )
        for _ in range(2):
            learner.step(batch, meta_batch=meta)
        found.append([*loss.state_dict().values(), *one.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert not torch.equal(model.head.weight, frozen(weights).head.weight)


@pytest.mark.filterwarnings("ignore:.*the last layer is new.*:UserWarning")
def test_a_run_trains_the_head_and_predicts_without_the_file_of_weights(weights, tmp_path):
    path = shutil.copy(weights, tmp_path / "resnet18.pt")
    words = ["model=torchvision", "model.network=resnet18", f"model.weights={path}"]
    words += ["model.train_only=head", "task=digits", "task.subset=40", "steps=3", "batch_size=8"]
    words += ["start.steps=5", "meta_batch_size=8", "tracker=[]", "compile=off"]
    run = metaloss.train([*words, "task.meta_fraction=0.1", f"output={tmp_path / 'run'}"])
    before, after = network().state_dict(), run.model.network.state_dict()
    changed = [name for name in after if before[name].shape == after[name].shape]
    changed = [name for name in changed if not torch.equal(before[name], after[name])]
    # The head has ten outputs in the file too, and is trained from there.
    assert changed == ["fc.weight", "fc.bias"]
    images = torch.rand(5, 1, 8, 8).numpy() * 16
    (tmp_path / "resnet18.pt").unlink()
    again = metaloss.load_run(run.folder)
    assert again.predict(images).equals(run.predict(images))
    assert again.predict(images).filter(like="p(").to_numpy().std() > 0
