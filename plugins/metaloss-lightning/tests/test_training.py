"""A module trains under a learned loss as it trains under its own, in Lightning's Trainer."""

import csv

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

import metaloss
from metaloss.core.learner.trusted import TrustedBatches

from .training import InEpochs, Net, end, learned, new_loss, rows, trainer

pytestmark = pytest.mark.filterwarnings("ignore:::lightning", "ignore::FutureWarning")


def assert_equal(one, other):
    for a, b in zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def fit(folder, callback, *others, module=None, **given):
    module = module or Net()
    run = trainer(folder, callback, *others, **given)
    loader = DataLoader(rows(1, 64), 16, sampler=InEpochs(64))
    run.fit(module, loader, DataLoader(rows(2, 32), 32))
    return run, module


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a training of two epochs: its folder, trainer, module and callback."""
    folder = tmp_path_factory.mktemp("whole")
    callback = learned()
    saving = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    run, module = fit(folder, callback, saving, LearningRateMonitor("step"))
    return folder, run, module, callback


def by_hand(parts=1, **given):
    """Train as `whole` does, in a plain loop with a Learner; return it and the steps' losses."""
    module, loss = Net().train(), new_loss()
    trusted = TrustedBatches(DataLoader(rows(5, 40), 8, shuffle=True), seed=3)
    learner = metaloss.Learner(
        module,
        loss,
        task_loss=F.cross_entropy,
        inner=module.configure_optimizers()["lr_scheduler"]["scheduler"],
        seed=3,
        **given,
    )
    sampler, losses = InEpochs(64), []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(DataLoader(rows(1, 64), 16, sampler=sampler))
        for first in range(0, len(batches), parts):
            batch = batches[first] if parts == 1 else batches[first : first + parts]
            losses.append(learner.step(batch, next(trusted), accumulate=parts > 1))
    return learner, losses


@pytest.fixture(scope="module")
def plain():
    return by_hand()


def logged(folder):
    with (folder / "log/metrics.csv").open() as lines:
        return list(csv.DictReader(lines))


def test_the_steps_are_those_of_a_learner(whole, plain):
    _, run, module, callback = whole
    learner, _ = plain
    assert run.global_step == 8
    assert_equal(module.state_dict(), learner.model.state_dict())
    assert_equal(callback.loss.state_dict(), learner.loss.state_dict())
    assert not torch.equal(module.net[0].weight, Net().net[0].weight)
    moved = zip(callback.loss.parameters(), new_loss().parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)
    assert not {"training_step", "backward", "forward"} & vars(module).keys()


def test_curves_are_in_its_logger(whole, plain):
    lines, losses = logged(whole[0]), plain[1]

    def column(name):
        return [float(line[name]) for line in lines if line.get(name)]

    for name, values in (
        ("learned_loss", [one.inner[-1] for one in losses]),
        ("train_task_loss", [one.train_task[-1] for one in losses]),
        ("meta_task_loss", [one.meta_task for one in losses]),
    ):
        assert column(name) == pytest.approx([float(value) for value in values], rel=1e-6)
    assert column("lr-AdamW") == pytest.approx([0.03 * 0.9**step for step in range(8)])
    assert column("step_taken") == [1.0] * 8
    assert len(column("train_loss")) == 8  # what training_step logs itself
    assert len(column("val_loss")) == 2


def test_a_training_goes_on_from_its_checkpoint_bit_by_bit(whole, tmp_path):
    folder, _, module, callback = whole
    saved = torch.load(folder / "epoch=0.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert "model" not in saved["callbacks"]["LearnedLoss"]["learner"]
    other, later = Net(), learned()
    run = trainer(tmp_path, later)
    loader = DataLoader(rows(1, 64), 16, sampler=InEpochs(64))
    run.fit(other, loader, ckpt_path=folder / "epoch=0.ckpt")
    assert_equal(end(other, later), end(module, callback))


def test_accumulated_and_clipped_as_the_trainer_says(tmp_path, plain):
    run, module = fit(tmp_path, learned(), accumulate_grad_batches=2, gradient_clip_val=1e-4)
    assert run.global_step == 4
    learner, _ = by_hand(parts=2, clip=1e-4)
    assert_equal(module.state_dict(), learner.model.state_dict())


class Child(Net):
    """The network is a part of the module, is given a view of the rows, returns a dictionary."""

    class Inner(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, pixels, scale=None, mask=None):
            return {"logits": self.net(pixels) * scale}

    def __init__(self):
        super().__init__()
        self.net = self.Inner(self.net)

    def training_step(self, batch, batch_idx):
        pixels = batch["image"].flatten(1) / 2
        outputs = self.net(pixels, scale=torch.full((len(pixels), 1), 2.0), mask=None)["logits"]
        self.log("accuracy", (outputs.argmax(1) == batch["label"]).float().mean())
        return {"loss": F.cross_entropy(outputs, batch["label"]), "outputs": outputs}


def test_what_training_step_gives_its_network_is_followed(tmp_path):
    images = [{"image": x.view(2, 3), "label": y} for x, y in rows(1, 32)]
    module = Child()
    before = [value.clone() for value in module.parameters()]
    callback = learned(DataLoader(images[:16], 8), period=2)
    trainer(tmp_path, callback, max_epochs=1).fit(module, DataLoader(images[16:], 8))
    assert callback.learner.model is module.net
    assert all(not torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))
    saved = callback.state_dict()
    assert (saved["steps"], saved["taken"]) == (2, 1)  # the loss has moved once
    assert [bool(line["accuracy"]) for line in logged(tmp_path)] == [True, True]


def test_half_precision(tmp_path, plain):
    _, module = fit(tmp_path, learned(), precision="bf16-mixed", max_epochs=1)
    assert module.net[0].weight.dtype == torch.float32
    narrow = float(logged(tmp_path)[0]["train_task_loss"])
    wide = float(plain[1][0].train_task)
    assert narrow != wide
    assert narrow == pytest.approx(wide, rel=0.01)


class Manual(Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Clips(Net):
    def configure_gradient_clipping(self, optimizer, *_, **__):
        self.clip_gradients(optimizer, 1.0)


class Regularised(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + self.net[0].weight.square().sum()


class TwoViews(Net):
    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - self(batch[0] + 1)).square().mean()


class InParts(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(self.net(batch[0])), batch[1])


class Nothing(Net):
    def training_step(self, batch, batch_idx):
        return batch[0].sum()


class Cycles(Net):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=8)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Limited(Net):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters())


class Untargeted(Net):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return {0: batch[0], 1: batch[1]}


@pytest.mark.parametrize(
    ("module", "given", "message"),
    [
        (Manual, {}, "Manual has automatic_optimization=False: expected automatic"),
        (Clips, {}, r"Clips\.configure_gradient_clipping is your own"),
        (
            Regularised,
            {},
            "depends on the weights in another way than through the outputs of self:",
        ),
        (TwoViews, {}, "training_step calls self 2 times: expected once"),
        (
            InParts,
            {},
            r"a parameter of shape \(3, 3\) that is not in self\.net, which training_step",
        ),
        (Nothing, {}, r"calls neither the module .* nor one of its parts \(net\): pass network="),
        (Cycles, {}, "momentum of group 0 .* needs cycle_momentum=False"),
        (Limited, {}, r"torch\.optim\.lbfgs\.LBFGS, which has no equal here"),
        (Untargeted, {}, "the batch is a dict without targets that are known"),
        (Net, {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}, "expected norm"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_line(module, given, message, tmp_path):
    module = module()
    with pytest.raises(metaloss.MetalossError, match=message) as raised:
        fit(tmp_path, learned(), module=module, logger=False, enable_checkpointing=False, **given)
    assert "\n" not in str(raised.value)
    assert "training_step" not in vars(module)


def test_a_period_must_be_a_whole_number():
    for period in (0, True):
        with pytest.raises(metaloss.MetalossError, match=f"period={period}: expected a whole num"):
            learned(period=period)


def test_a_checkpoint_without_a_learned_loss_is_said(tmp_path, caplog):
    class Plain(Net):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {"logger": False, "enable_checkpointing": False}
    run = trainer(tmp_path, **quiet, max_epochs=1)
    loader = DataLoader(rows(1, 16), 16)
    run.fit(Plain(), loader)
    run.save_checkpoint(tmp_path / "plain.ckpt")
    later = trainer(tmp_path, learned(), **quiet, max_epochs=2)
    later.fit(Plain(), loader, ckpt_path=tmp_path / "plain.ckpt")
    assert "has no learned loss: φ begins anew" in caplog.text
