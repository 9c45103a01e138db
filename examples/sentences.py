"""Fine-tune a classifier of sentences under a learned loss, in Hugging Face's Trainer.

A small BERT from a random configuration learns whether a review is good, from 600 reviews of which
40 % have the wrong label. The loss is learned on 60 reviews with right labels. Nothing is
downloaded; with a model of your own, only ``new_model`` changes. Forty steps from random weights
show the code, not what a learned loss is good for: in 300 steps, neither loss gets far below an
error of 0.4. Run it:

    python examples/sentences.py
"""

import tempfile

import torch
from metaloss_transformers import LearnedLossTrainer
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

import metaloss
from metaloss import Imitate, MLPLoss

GOOD = ["great", "lovely", "superb", "fine", "warm", "bright", "clever", "moving"]
BAD = ["dull", "awful", "weak", "cold", "slow", "clumsy", "stale", "empty"]
OTHER = ["the", "a", "film", "plot", "cast", "end", "score", "scene", "and", "is", "was"]


def reviews(count, draw, wrong=0.0):
    """Return sentences and labels; a share of the labels is wrong."""
    texts, labels = [], []
    for _ in range(count):
        good = int(torch.randint(2, (), generator=draw))
        strong = int(torch.randint(2, 4, (), generator=draw))
        words = [*pick((BAD, GOOD)[good], strong, draw), *pick((GOOD, BAD)[good], 1, draw)]
        words += pick(OTHER, 6, draw)
        order = torch.randperm(len(words), generator=draw).tolist()
        texts.append(" ".join(words[place] for place in order))
        flipped = torch.rand((), generator=draw) < wrong
        labels.append(1 - good if flipped else good)
    return texts, labels


def pick(words, count, draw):
    return [words[k] for k in torch.randint(len(words), (count,), generator=draw).tolist()]


def new_tokenizer():
    words = ["[PAD]", "[UNK]", *GOOD, *BAD, *OTHER]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def new_model(tokenizer):
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
        )
    )


def rows(tokenizer, texts, labels):
    found = tokenizer(texts, padding="max_length", max_length=16)
    keys = ("input_ids", "attention_mask")
    return [
        {**{key: found[key][row] for key in keys}, "labels": label}
        for row, label in enumerate(labels)
    ]


def test_error(trainer, test):
    """Return the share of wrong classes."""
    found = trainer.predict(test)
    return float((found.predictions.argmax(-1) != found.label_ids).mean())


def main(steps=40):
    draw, tokenizer = torch.Generator().manual_seed(0), new_tokenizer()
    train, trusted, test = (
        rows(tokenizer, *reviews(count, draw, wrong))
        for count, wrong in ((600, 0.4), (60, 0.0), (500, 0.0))
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            learning_rate=0.003,
            per_device_train_batch_size=32,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=steps,
            use_cpu=True,
        )
        plain = Trainer(new_model(tokenizer), arguments, train_dataset=train)
        plain.train()
        learned = LearnedLossTrainer(
            new_model(tokenizer),
            arguments,
            train_dataset=train,
            trusted_dataset=trusted,
            loss=metaloss.imitate(MLPLoss(), cross_entropy, outputs=2, config=Imitate(steps=200)),
        )
        learned.train()
        print(f"test error with cross-entropy:    {test_error(plain, test):.3f}")
        print(f"test error with the learned loss: {test_error(learned, test):.3f}")


if __name__ == "__main__":
    main()
