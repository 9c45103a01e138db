"""The written-out transformers against torch's own, which cannot be differentiated twice."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.models.transformer import Block, TransformerConfig

from .literature import built, drawn

CONFIG = TransformerConfig(layers=3, width=12, heads=3)


def torchs_block(block):
    """Return torch's encoder layer with the same weights, and biases drawn for both."""
    reference = nn.TransformerEncoderLayer(
        12, 3, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    for index, (name, value) in enumerate(block.named_parameters()):
        if name.endswith("bias"):
            value.data = 0.1 * drawn(*value.shape, seed=index)
    norm, attention, project = block.attention[:3]
    norm_2, widen, _, narrow = block.mlp[:4]
    pairs = {
        reference.norm1: norm,
        reference.self_attn.out_proj: project,
        reference.norm2: norm_2,
        reference.linear1: widen,
        reference.linear2: narrow,
    }
    for theirs, ours in pairs.items():
        theirs.load_state_dict(ours.state_dict())
    reference.self_attn.in_proj_weight.data = attention.qkv.weight.data
    reference.self_attn.in_proj_bias.data = attention.qkv.bias.data
    return reference


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_computes_what_torchs_does(causal):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Block(CONFIG, causal=causal).double()
        reference = torchs_block(block)
    x = 3 * drawn(2, 5, 12)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    torch.testing.assert_close(block(x), reference(x, src_mask=mask), rtol=1e-10, atol=1e-12)
    assert (block(x) - x).abs().max() > 1e-3


def test_gpt_sees_no_later_token():
    model = built("gpt", {"layers": 2, "width": 8, "heads": 2}, (6,), outputs=7).double()
    tokens = torch.arange(6)[None]
    changed = tokens.clone()
    changed[0, 4] = 6
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert (before - after)[:, :, 4:].abs().amin((0, 2)).min() > 0
    torch.testing.assert_close(model(tokens[:, :3]), before[:, :, :3])


def test_vit_computes_what_torchvisions_does():
    from torchvision.models import VisionTransformer

    options = {"layers": 2, "width": 12, "heads": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = VisionTransformer(8, 4, 2, 3, 12, 48, num_classes=3).double()
    ours = built("vit", options, (3, 8, 8)).double()
    theirs = dict(reference.named_parameters())
    for index, value in enumerate(theirs.values()):
        value.data = 0.3 * drawn(*value.shape, seed=index)
    parts = {
        "patches": "conv_proj",
        "norm": "encoder.ln",
        "head": "heads.head",
        "token.weight": "class_token",
        "positions.weight": "encoder.pos_embedding",
    }
    for index in range(2):
        block, layer = f"blocks.{index}", f"encoder.layers.encoder_layer_{index}"
        parts |= {
            f"{block}.attention.0": f"{layer}.ln_1",
            f"{block}.attention.1.qkv.weight": f"{layer}.self_attention.in_proj_weight",
            f"{block}.attention.1.qkv.bias": f"{layer}.self_attention.in_proj_bias",
            f"{block}.attention.2": f"{layer}.self_attention.out_proj",
            f"{block}.mlp.0": f"{layer}.ln_2",
            f"{block}.mlp.1": f"{layer}.mlp.0",
            f"{block}.mlp.3": f"{layer}.mlp.3",
        }
    for name, value in ours.named_parameters():
        part, _, last = name.rpartition(".")
        value.data = theirs[parts.get(name) or f"{parts[part]}.{last}"].data.view_as(value)
    inputs = drawn(2, 3, 8, 8)
    expected = reference(inputs)
    torch.testing.assert_close(ours(inputs), expected, rtol=1e-10, atol=1e-12)
    assert expected.std() > 1e-2


def test_weights_begin_as_gpt_2s():
    model = built("gpt", {"layers": 8, "width": 64, "heads": 2}, (32,), outputs=50)
    stds = {name: float(value.detach().std()) for name, value in model.named_parameters()}
    assert stds["tokens.weight"] == pytest.approx(0.02, rel=0.1)
    assert stds["positions.weight"] == pytest.approx(0.02, rel=0.1)
    for index in range(8):
        block = f"blocks.{index}"
        assert stds[f"{block}.attention.1.qkv.weight"] == pytest.approx(0.02, rel=0.1)
        assert stds[f"{block}.attention.2.weight"] == pytest.approx(0.02 / 4, rel=0.1)
        assert stds[f"{block}.mlp.3.weight"] == pytest.approx(0.02 / 4, rel=0.1)


def test_gpt_begins_with_the_loss_of_a_uniform_guess():
    model = built("gpt", {"layers": 2, "width": 32, "heads": 2}, (16,), outputs=65)
    tokens = torch.randint(65, (8, 17), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
    assert loss.item() == pytest.approx(torch.tensor(65.0).log().item(), rel=0.01)


def test_gpt_trains_online_on_rows_of_tokens(tmp_path):
    """The text repeats: what follows can be told from what was before."""
    text = torch.arange(400) % 5
    rows = text.unfold(0, 9, 3)
    task = metaloss.task_from_data((rows[:, :-1], rows[:, 1:]), name="text")
    words = ["model=gpt", "model.layers=1", "model.width=16", "model.heads=2", "tracker=[]"]
    words += [
        "steps=60",
        "inner=adam",
        "inner.lr=0.01",
        "batch_size=16",
        "start.steps=200",
        f"output={tmp_path}/run",
    ]
    run = metaloss.train(words, task=task)
    assert task.outputs == 5
    assert run.summary.metrics["test/error"] < 0.2
