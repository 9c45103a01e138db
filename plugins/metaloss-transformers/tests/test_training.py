"""Models of Hugging Face train under a learned loss, in their Trainer."""

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

import metaloss
from metaloss import MLPLoss
from metaloss.core.learner.trusted import TrustedBatches
from metaloss.losses import CrossEntropy

from .training import Sentences, classifier, end, language_model, seeded, trainer

pytestmark = pytest.mark.filterwarnings("ignore:::transformers", "ignore::FutureWarning")


def assert_equal(one, other):
    for a, b in zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


SAVING = {"save_strategy": "steps", "save_steps": 3, "warmup_steps": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a training of six steps with checkpoints: its folder and trainer."""
    folder = tmp_path_factory.mktemp("whole")
    run = trainer(folder, options=SAVING)
    batches = []

    plain = run.training_step

    def watched(model, inputs, *rest):
        batches.append({name: value.clone() for name, value in inputs.items()})
        return plain(model, inputs, *rest)

    run.training_step = watched
    run.train()
    return folder, run, batches


def column(run, name):
    return [line[name] for line in run.state.log_history if name in line]


def test_the_steps_are_those_of_a_learner(whole):
    _, run, batches = whole
    model, loss = classifier().train(), seeded(MLPLoss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    learner = metaloss.Learner(
        model, loss, task_loss=F.cross_entropy, inner=optimizer, seed=42, clip=1.0
    )
    trusted = TrustedBatches(DataLoader(Sentences(2, 20), 8, shuffle=True), seed=42)
    learner.set_lr(lambda step: 0.01 * min(step / 2, (6 - step) / 4))
    found = []
    for batch in batches:
        meta = next(trusted)
        found.append(learner.step((batch, batch.pop("labels")), (meta, meta.pop("labels"))))
    assert run.state.global_step == 6
    for name, value in learner.model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value, rtol=1e-6, atol=1e-7)
    for one, other in zip(run.loss.parameters(), loss.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    for name, values in (
        ("loss", [one.train_task[-1] for one in found]),
        ("learned_loss", [one.inner[-1] for one in found]),
        ("meta_task_loss", [one.meta_task for one in found]),
    ):
        assert column(run, name) == pytest.approx(list(map(float, values)), rel=1e-5)
    assert column(run, "steps_taken") == [1.0] * 6
    assert column(run, "learning_rate") == pytest.approx(
        [0.01 * min(step / 2, (6 - step) / 4) for step in range(6)]
    )
    assert not column(run, "grad_norm")


def test_a_training_goes_on_from_its_checkpoint_bit_by_bit(whole, tmp_path):
    folder, run, _ = whole
    later = trainer(tmp_path, options=SAVING)
    later.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    assert_equal(end(later), end(run))
    moved = zip(run.loss.parameters(), seeded(MLPLoss).parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)


def test_a_checkpoint_has_the_loss(whole):
    folder, run, _ = whole
    loaded = metaloss.load_loss(folder / "checkpoint-6")
    assert_equal(loaded.state_dict(), run.loss.state_dict())
    first = metaloss.load_loss(folder / "checkpoint-3")
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), loaded.parameters(), strict=True)
    )


def test_a_checkpoint_of_another_trainer_is_refused(whole, tmp_path):
    folder, _, _ = whole
    broken = tmp_path / "checkpoint-3"
    broken.mkdir()
    for path in (folder / "checkpoint-3").iterdir():
        if path.name != "learner.pt":
            (broken / path.name).write_bytes(path.read_bytes())
    with pytest.raises(metaloss.MetalossError, match=r"checkpoint-3 has no learner\.pt: it was"):
        trainer(tmp_path / "out").train(resume_from_checkpoint=str(broken))


def test_a_causal_language_model(tmp_path):
    run = trainer(tmp_path, language_model(), next_token=True, options={"max_steps": 2})
    run.train()
    assert run.state.global_step == 2
    # The task loss is the model's own loss of the next tokens.
    model = language_model()
    batch = torch.utils.data.default_collate(Sentences(1, 32, next_token=True).rows[:8])
    own = model(**batch).loss
    labels = batch.pop("labels")
    outputs = run._task.output(model(**batch))
    torch.testing.assert_close(run._task.task_loss(outputs, run._task.targets(labels)), own)


def test_adapters_alone_are_trained(tmp_path):
    given = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = seeded(lambda: peft.get_peft_model(language_model(), given))
    before = {name: value.clone() for name, value in model.named_parameters()}
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    run = trainer(tmp_path, model, next_token=True, options=options)
    run.train()
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) != ("lora_" in name), name
    assert any(
        not torch.equal(a, b)
        for a, b in zip(run.loss.parameters(), seeded(MLPLoss).parameters(), strict=True)
    )
    again = seeded(lambda: peft.get_peft_model(language_model(), given))
    later = trainer(tmp_path / "later", again, next_token=True, options=options)
    later.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_equal(end(later), end(run))


def test_half_precision_and_accumulation(tmp_path):
    few = {"max_steps": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    wide = trainer(tmp_path, options=few, period=2)
    wide.train()
    narrow = trainer(tmp_path, options={**few, "bf16": True}, period=2)
    narrow.train()
    values = [column(run, "loss")[0] for run in (wide, narrow)]
    assert values[0] != values[1]
    assert values[1] == pytest.approx(values[0], rel=0.02)
    assert next(narrow.model.parameters()).dtype == torch.float32


def test_a_learned_loss_as_compute_loss_func(tmp_path):
    """The other way: a loss that was learned before, in the plain Trainer."""
    loss = CrossEntropy()
    options = {"max_steps": 2, "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    run = Trainer(
        classifier(),
        TrainingArguments(str(tmp_path), save_strategy="no", logging_steps=1, **options),
        train_dataset=Sentences(1, 16),
        compute_loss_func=lambda outputs, labels, **_: loss(outputs.logits, labels),
    )
    run.train()
    assert all(value < 1 for value in column(run, "loss"))


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"label_smoothing_factor": 0.1}, {}, r"label_smoothing_factor=0\.1: the loss is learned"),
        ({}, {"compute_loss_func": F.cross_entropy}, "compute_loss_func: the loss is learned"),
        ({"label_names": ["start", "end"]}, {}, "label_names=.*: expected one name"),
        ({}, {"period": 0}, "period=0: expected a whole number"),
        ({}, {"period": True}, "period=True: expected a whole number"),
        ({}, {"trusted_dataset": []}, "the trusted DataLoader has no rows"),
        ({"optim": "adafactor"}, {}, "Adafactor, which has no equal here"),
        ({}, {"model": nn.Linear(2, 2)}, "Linear is a model for None, whose outputs"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_line(options, given, message, tmp_path):
    with pytest.raises(metaloss.MetalossError, match=message) as raised:
        trainer(tmp_path, options=options, **given).train()
    assert "\n" not in str(raised.value)
