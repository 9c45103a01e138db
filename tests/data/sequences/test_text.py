import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.data.corruptions import NoiseKind
from metaloss.data.sequences.text import Text, TextMetric, bits_per_character, python_help
from metaloss.errors import MetalossError
from metaloss.testing import check_part

SONG = "".join(f"{n} green bottles hanging on the wall; " for n in range(400))


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.txt"
    path.write_text(SONG, "utf-8")
    return str(path)


def test_keeps_its_contract(song):
    for source in (Text(path=song, length=16), Text(path=song, metric=TextMetric.error)):
        results = check_part("task", "text", source)
        assert [f"{r.name}: {r.message}" for r in results if not r.passed] == []


def test_targets_are_the_next_characters_of_the_text(song):
    task = Text(path=song, length=10).build(0)
    alphabet = sorted(set(SONG))
    assert (task.name, task.outputs) == ("text-song", len(alphabet))

    def spelt(row):
        return "".join(alphabet[code] for code in row)

    seen = set()
    for part in (task.train, task.valid, task.test):
        assert part.inputs.dtype == part.targets.dtype == torch.int64
        for inputs, targets in zip(part.inputs, part.targets, strict=True):
            place = SONG.index(spelt(inputs))
            while place % 10 or SONG[place + 1 : place + 11] != spelt(targets):
                place = SONG.index(spelt(inputs), place + 1)
            seen.add(place)
    assert len(seen) == sum(len(p.inputs) for p in (task.train, task.valid, task.test))


def test_the_end_of_the_text_is_the_test_part(song):
    source = Text(path=song, test_fraction=0.2, valid_fraction=0.1)
    rows, other = source.rows(0), source.rows(1)
    count = sum(map(len, rows))
    assert rows.test.tolist() == other.test.tolist() == list(range(count - len(rows.test), count))
    assert len(rows.test) == round(0.2 * count)
    assert len(rows.valid) == round(0.1 * count)
    assert rows.valid.tolist() != other.valid.tolist()


def test_a_row_that_occurs_again_is_left_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcdefgh" * 50 + "".join(map(chr, range(200, 500))) + "!", "utf-8")
    rows = Text(path=str(path), length=8).rows(0)
    assert sum(map(len, rows)) == 1 + 300 // 8


def test_bits_are_the_cross_entropy_over_log_2(song):
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 5, 7, generator=draw, dtype=torch.float64)
    targets = torch.randint(5, (3, 7), generator=draw)
    chances = outputs.softmax(1)
    bits = [-math.log2(chances[b, targets[b, t], t]) for b in range(3) for t in range(7)]
    assert bits_per_character(outputs, targets).item() == pytest.approx(sum(bits) / 21)
    assert Text(path=song).build(0).metric is bits_per_character
    assert Text(path=song, metric=TextMetric.error).build(0).metric_name == "error"


def test_label_noise_hits_a_share_of_the_places(song):
    clean = Text(path=song).build(0)
    noisy = Text(path=song, label_noise=0.3, noise_kind=NoiseKind.pair).build(0)
    wrong = clean.train.targets != noisy.train.targets
    assert wrong.sum() == round(0.3 * wrong.numel())
    expected = (clean.train.targets[wrong] + 1) % clean.outputs
    assert torch.equal(noisy.train.targets[wrong], expected)
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert torch.equal(clean.test.targets, noisy.test.targets)
    assert torch.equal(clean.valid.targets, noisy.valid.targets)


def test_pythons_own_help_is_the_default():
    text = python_help()
    assert text == python_help()
    assert 'The "for" statement' in text
    task = Text().build(0)
    assert len(task.train.inputs) > 3000
    assert "Python's help texts" in task.description


class Bigrams(nn.Module):
    def __init__(self, characters):
        super().__init__()
        self.table = nn.Embedding(characters, characters)

    def forward(self, inputs):
        return self.table(inputs).transpose(1, 2)


def test_a_run_learns_to_guess_the_next_character(song, tmp_path):
    task = Text(path=song, length=16).build(0)
    words = ["schedule=online", "steps=60", "inner=adam", "inner.lr=0.1", "tracker=[]"]
    words += ["batch_size=16", "meta_batch_size=16"]
    run = metaloss.train(
        [*words, "start.steps=100", f"output={tmp_path / 'run'}"],
        task=task,
        model=Bigrams(task.outputs),
    )
    bits = run.summary.metrics["test/bits_per_character"]
    assert bits < 0.8 * task.constant_loss / math.log(2)


def test_a_model_for_other_inputs_is_refused_in_one_line(song, tmp_path):
    with pytest.raises(MetalossError) as error:
        metaloss.train(["task=text", f"task.path={song}", f"output={tmp_path / 'run'}"])
    assert "\n" not in str(error.value)


def test_the_constant_loss_is_that_of_the_characters_frequencies(song):
    task = Text(path=song).build(0)
    shares = torch.bincount(task.train.targets.flatten(), minlength=task.outputs).double()
    logits = (shares / shares.sum()).clamp(min=1e-30).log()
    expand = logits.view(1, -1, 1).expand(len(task.train.targets), -1, 64)
    assert task.constant_loss == pytest.approx(F.cross_entropy(expand, task.train.targets).item())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"",
            "0 characters, 0 different ones; expected two different ones",
        ),
        (b"a" * 300, "300 characters, 1 different ones; expected two"),
        (b"caf\xe9 " * 99, "line 1: not UTF-8 (byte 0xe9); save the file in UTF-8"),
        (b"abc" * 50, "no test rows, of 2 rows; expected a longer text"),
    ],
)
def test_texts_that_do_not_suffice_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(MetalossError) as error:
        Text(path=str(path)).build(0)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MetalossError, match=r"no\.txt: No such file .*; expected a text file"):
        Text(path=str(tmp_path / "no.txt")).build(0)
