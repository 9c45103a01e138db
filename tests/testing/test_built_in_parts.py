import pytest
import torch

from metaloss import registry
from metaloss.errors import MetalossError
from metaloss.losses import MLPLoss
from metaloss.losses.export import DESCRIPTION, WEIGHTS, pack
from metaloss.losses.load import LoadConfig
from metaloss.losses.logit_adjusted import LogitAdjustedConfig
from metaloss.losses.mlp import MLPLossConfig
from metaloss.losses.of_rows.class_margins import CountsConfig, LDAMConfig
from metaloss.losses.of_rows.correction import CorrectionConfig
from metaloss.losses.of_rows.row_weights import RowWeightsConfig
from metaloss.models.pretrained.torchvision import TorchvisionConfig
from metaloss.models.resnet18 import ResNet18Config
from metaloss.models.transformer import TransformerConfig
from metaloss.models.vgg16 import VGG16Config
from metaloss.models.vit import ViTConfig
from metaloss.models.wrn import WRNConfig
from metaloss.starts import Imitate
from metaloss.testing import check_part

# What makes a part quick enough, or needs to be said before it can be made.
COUNTS = [40.0, 30.0, 20.0, 10.0]
OPTIONS = {
    ("loss", "logit_adjusted"): LogitAdjustedConfig(shares=[0.4, 0.3, 0.2, 0.1]),
    ("loss", "balanced_softmax"): CountsConfig(counts=COUNTS),
    ("loss", "ldam"): LDAMConfig(counts=COUNTS, scale=3.0, drw=0.5, drw_beta=0.9),
    ("loss", "correction"): CorrectionConfig(classes=4, trusted_from=3),
    ("loss", "row_weights"): RowWeightsConfig(rows=8),
    ("start", "imitate"): Imitate(steps=20),
    ("model", "resnet18"): ResNet18Config(width=2),
    ("model", "vgg16"): VGG16Config(width=2),
    ("model", "wrn"): WRNConfig(depth=10, widen=1, dropout=0.2),
    ("model", "vit"): ViTConfig(layers=2, width=8, heads=2, dropout=0.2),
    ("model", "torchvision"): TorchvisionConfig(network="resnet18"),
    ("model", "gpt"): TransformerConfig(layers=2, width=8, heads=2, dropout=0.2),
}

# What needs files is checked where the files are written, tests/data.
CHECKED_ELSEWHERE = {
    ("loss", "load"),
    *(("task", name) for name in ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")),
    *(("task", name) for name in ("csv", "images", "california_housing", "communities_crime")),
}

BUILT_IN = [
    (group, name)
    for group in registry.GROUPS
    for name in registry.names(group)
    if registry.get(group, name).source.startswith("metaloss ")
    and (group, name) not in CHECKED_ELSEWHERE
]


def failures(results):
    return [f"{r.name}: {r.message}" for r in results if not r.passed]


@pytest.mark.parametrize(("group", "name"), BUILT_IN)
def test_every_built_in_part_keeps_its_contract(group, name):
    results = check_part(group, name, OPTIONS.get((group, name)))
    assert failures(results) == []
    assert len(results) >= 4


def test_a_loaded_loss_keeps_its_contract(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = MLPLoss()
    loss.family = "mlp"
    weights, description = pack(loss, dict(loss.named_parameters()), {})
    (tmp_path / WEIGHTS).write_bytes(weights)
    (tmp_path / DESCRIPTION).write_bytes(description)
    results = check_part("loss", "load", LoadConfig(path=str(tmp_path)))
    assert failures(results) == []
    # Only the link that it was learned for can be made.
    assert all("[softmax]" in result.name for result in results)


def test_a_loss_that_sees_memory_and_progress_keeps_its_contract():
    inputs = ["target", "prediction", "progress", "average", "memory"]
    results = check_part("loss", "mlp", MLPLossConfig(hidden=[4], inputs=inputs))
    assert failures(results) == []


def test_losses_are_checked_with_every_link_that_they_take():
    labels = {name.rsplit("[", 1)[1] for name in (r.name for r in check_part("loss", "gce"))}
    assert labels == {"softmax]", "sigmoid]"}


def test_what_cannot_be_made_is_refused_in_the_parts_own_words():
    with pytest.raises(MetalossError, match=r"loss=load without loss\.path: expected"):
        check_part("loss", "load")
    with pytest.raises(MetalossError, match="unknown loss 'mpl': did you mean 'mlp'"):
        check_part("loss", "mpl")
