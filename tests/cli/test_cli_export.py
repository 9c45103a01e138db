"""``metaloss export``: what it writes, and what it says where there is no criterion.py."""

import pytest

from metaloss import registry
from metaloss.cli import plugin_files
from metaloss.losses.export import DESCRIPTION, WEIGHTS, load_loss, pack
from metaloss.types import Link

PLUGIN = """
import torch

from metaloss.losses.base import LearnedLoss
from metaloss.losses.handcrafted import NoOptions
from metaloss.registry import register


@register("loss", "mine")
class Mine(LearnedLoss):
    \"""A loss of a plugin, without a source.\"""

    Config = NoOptions

    def __init__(self, config=None, **given):
        super().__init__(config, **given)
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def pointwise(self, prediction, target):
        return self.weight * (prediction - target) ** 2
"""


@pytest.fixture
def stored(tmp_path):
    """Write a loss as a run does, and return the folder."""

    def store(name, **options):
        part = registry.get("loss", name)
        config = part.config_class(**options)
        loss = part.build(config, link=Link.softmax)
        folder = tmp_path / "run"
        folder.mkdir()
        for file, content in zip(
            (WEIGHTS, DESCRIPTION), pack(loss, dict(loss.named_parameters()), {}), strict=True
        ):
            (folder / file).write_bytes(content)
        return folder

    return store


def listed(out, *names):
    return "".join(f"{out / name}\n" for name in names)


def test_a_loss_with_a_source_has_a_criterion(cli, stored, tmp_path):
    out = tmp_path / "out"
    assert cli("export", stored("mlp"), out) == (
        0,
        listed(out, WEIGHTS, DESCRIPTION, "criterion.py"),
        "",
    )


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("soft_targets", {}, "needs more than outputs and targets"),
        (
            "mlp",
            {"inputs": ["target", "prediction", "rank"]},
            "needs more than outputs and targets",
        ),
        ("bi_tempered", {}, "has no source for it"),
    ],
)
def test_why_a_loss_of_rows_has_no_criterion(cli, stored, tmp_path, name, options, reason):
    out = tmp_path / "out"
    status, said, err = cli("export", stored(name, **options), out)
    assert (status, said) == (0, listed(out, WEIGHTS, DESCRIPTION))
    assert err == (
        f"metaloss: no criterion.py: this loss {reason}; use metaloss.load_loss({str(out)!r})\n"
    )
    assert load_loss(out).family == name


def test_a_plugins_loss_without_a_source_has_no_criterion(cli, stored, tmp_path):
    plugin, out = tmp_path / "mine.py", tmp_path / "out"
    plugin.write_text(PLUGIN)
    plugin_files.load([plugin])
    status, said, err = cli("export", "--plugin", plugin, stored("mine"), out)
    assert (status, said) == (0, listed(out, WEIGHTS, DESCRIPTION))
    assert err == (
        "metaloss: no criterion.py: this loss has no source for it; use "
        f"metaloss.load_loss({str(out)!r})\n"
    )
