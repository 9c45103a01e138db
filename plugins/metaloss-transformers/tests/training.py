"""Small models from random configurations, and their training; as a script, it may be killed.

``python training.py FOLDER [--kill STEP] [--batch 8]`` writes the end to ``FOLDER/end.pt``.
"""

import argparse
import os
import signal
import warnings
from pathlib import Path

import torch
from metaloss_transformers import LearnedLossTrainer
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from metaloss import MLPLoss

SIZES = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}


class Sentences(Dataset):
    """Sentences of tokens; the label says whether there are more low tokens than high ones."""

    def __init__(self, seed, count, *, next_token=False):
        draw = torch.Generator().manual_seed(seed)
        self.rows = []
        for _ in range(count):
            length = 10
            tokens = torch.randint(2, 20, (length,), generator=draw)
            mask = (torch.arange(length) < torch.randint(4, 11, (1,), generator=draw)).long()
            tokens = tokens * mask
            low = ((tokens < 11) & mask.bool()).sum() * 2 > mask.sum()
            labels = torch.where(mask.bool(), tokens, -100) if next_token else low.long()
            self.rows.append({"input_ids": tokens, "attention_mask": mask, "labels": labels})

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.rows[row]


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def classifier(**given):
    return seeded(lambda: BertForSequenceClassification(BertConfig(**SIZES, **given)))


def language_model():
    return seeded(lambda: LlamaForCausalLM(LlamaConfig(**SIZES)))


def trainer(folder, model=None, *, next_token=False, options=None, **given):
    options = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "max_steps": 6,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **(options or {}),
    }
    given = {
        "loss": seeded(MLPLoss),
        "train_dataset": Sentences(1, 32, next_token=next_token),
        "trusted_dataset": Sentences(2, 20, next_token=next_token),
        **given,
    }
    return LearnedLossTrainer(model or classifier(), TrainingArguments(**options), **given)


def end(run):
    """Return all that training has come to."""
    return {
        "model": run.accelerator.unwrap_model(run.model).state_dict(),
        "learner": run.learner.state_dict(model=False),
    }


class _Kill(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder, *, kill=0, batch=8, double=0):
    """Train from the last checkpoint on, if there is one."""
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 12, "warmup_steps": 3}
    options["per_device_train_batch_size"] = batch
    # The dropout of attention draws random numbers that processes cannot share.
    model = classifier(attention_probs_dropout_prob=0.0).double() if double else classifier()
    run = trainer(folder, model, options=options)
    if kill:
        run.add_callback(_Kill(kill))
    run.train(resume_from_checkpoint=get_last_checkpoint(folder))
    if run.is_world_process_zero():
        torch.save(end(run), folder / "end.pt")
        torch.save(run.state.log_history, folder / "log.pt")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--kill", type=int, default=0)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--double", type=int, default=0)
    warnings.simplefilter("ignore")
    train(**vars(arguments.parse_args()))
