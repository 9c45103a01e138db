"""Recurrent layers, embeddings, attention."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..kind import Expected, Group, Net, Truth, head, real, tokens

GROUP = Group("Sequences: recurrent layers, embeddings, attention")
add = GROUP.add


def last(layer, width):
    """The outputs at the last step."""
    return Net(lambda m, x: m.head(m.layer(x)[0][:, -1]), layer=layer, head=head(width))


add("RNN, tanh", lambda: last(nn.RNN(3, 4, batch_first=True), 4), real(5, 3))
add(
    "RNN, relu, two layers",
    lambda: last(nn.RNN(3, 4, 2, nonlinearity="relu", batch_first=True), 4),
    real(5, 3),
)
add("GRU, two layers", lambda: last(nn.GRU(3, 4, 2, batch_first=True), 4), real(5, 3))
add(
    "GRU, bidirectional",
    lambda: last(nn.GRU(3, 4, bidirectional=True, batch_first=True), 8),
    real(5, 3),
)
add("LSTM", lambda: last(nn.LSTM(3, 4, batch_first=True), 4), real(5, 3))
add(
    "LSTM, bidirectional, two layers",
    lambda: last(nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), 8),
    real(5, 3),
)
add("LSTM, proj_size", lambda: last(nn.LSTM(3, 4, proj_size=2, batch_first=True), 2), real(5, 3))
add("LSTM, no bias", lambda: last(nn.LSTM(3, 4, bias=False, batch_first=True), 4), real(5, 3))
add(
    "LSTM with dropout",
    lambda: last(nn.LSTM(3, 4, 2, dropout=0.5, batch_first=True), 4),
    real(5, 3),
    truth=Truth.own,
    traces=None,
)
add(
    "GRU with dropout",
    lambda: last(nn.GRU(3, 4, 2, dropout=0.5, batch_first=True), 4),
    real(5, 3),
    truth=Truth.own,
    traces=None,
)


def _packed(m, x):
    packed = pack_padded_sequence(
        x, torch.tensor([5, 2, 4, 3]), batch_first=True, enforce_sorted=False
    )
    out, _ = pad_packed_sequence(m.layer(packed)[0], batch_first=True)
    return m.head(out.mean(1))


add(
    "LSTM, packed rows",
    lambda: Net(_packed, layer=nn.LSTM(3, 4, batch_first=True), head=head(4)),
    real(5, 3),
    expected=Expected.reverse,
    traces=None,
)
add(
    "GRU, packed rows",
    lambda: Net(_packed, layer=nn.GRU(3, 4, batch_first=True), head=head(4)),
    real(5, 3),
    expected=Expected.reverse,
    traces=None,
)


def _cells(cell):
    def run(m, x):
        state = None
        for step in x.unbind(1):
            state = m.cell(step, state)
        return m.head(state[0] if isinstance(state, tuple) else state)

    return Net(run, cell=cell, head=head(4))


add("RNNCell", lambda: _cells(nn.RNNCell(3, 4)), real(4, 3))
add("GRUCell", lambda: _cells(nn.GRUCell(3, 4)), real(4, 3))
add("LSTMCell", lambda: _cells(nn.LSTMCell(3, 4)), real(4, 3))


def bag(layer, reads=None):
    """The mean of what is looked up."""
    return Net(
        reads or (lambda m, x: m.head(torch.tanh(m.layer(x)).mean(1))), layer=layer, head=head(4)
    )


add("Embedding", lambda: bag(nn.Embedding(7, 4)), tokens(7, 5))
add("Embedding, padding_idx", lambda: bag(nn.Embedding(7, 4, padding_idx=0)), tokens(7, 5))
add(
    "Embedding, scale_grad_by_freq",
    lambda: bag(nn.Embedding(7, 4, scale_grad_by_freq=True)),
    tokens(7, 5),
    truth=Truth.graph,
    expected=Expected.refused,
    traces=None,
)
add(
    "Embedding, max_norm",
    lambda: bag(nn.Embedding(7, 4, max_norm=1.0)),
    tokens(7, 5),
    expected=Expected.refused,
    traces=None,
)
add(
    "Embedding, sparse",
    lambda: bag(nn.Embedding(7, 4, sparse=True)),
    tokens(7, 5),
    plain=lambda: bag(nn.Embedding(7, 4)),
    expected=Expected.reverse,
    # torch does not divide a sparse gradient by Adam's denominator in a graph.
    expected_adam=Expected.forward,
    traces=None,
)
for mode in ("mean", "sum", "max"):
    add(
        f"EmbeddingBag, {mode}",
        lambda mode=mode: bag(
            nn.EmbeddingBag(7, 4, mode=mode), lambda m, x: m.head(torch.tanh(m.layer(x)))
        ),
        tokens(7, 5),
        truth=Truth.differences,
    )
add(
    "EmbeddingBag, sparse",
    lambda: bag(nn.EmbeddingBag(7, 4, sparse=True), lambda m, x: m.head(torch.tanh(m.layer(x)))),
    tokens(7, 5),
    plain=lambda: bag(nn.EmbeddingBag(7, 4), lambda m, x: m.head(torch.tanh(m.layer(x)))),
    truth=Truth.differences,
)
add(
    "one_hot and a matrix",
    lambda: Net(lambda m, x: m.head(F.one_hot(x, 7).to(m.head.weight.dtype).mean(1)), head=head(7)),
    tokens(7, 5),
    traces=None,
)


def _attended(m, x):
    return m.head(m.layer(x, x, x)[0].mean(1))


add(
    "MultiheadAttention",
    lambda: Net(_attended, layer=nn.MultiheadAttention(4, 2, batch_first=True), head=head(4)),
    real(3, 4),
)
add(
    "MultiheadAttention, no weights, kdim",
    lambda: Net(
        lambda m, x: m.head(m.layer(x, x[..., :2], x[..., :3], need_weights=False)[0].mean(1)),
        layer=nn.MultiheadAttention(4, 2, kdim=2, vdim=3, batch_first=True),
        head=head(4),
    ),
    real(3, 4),
)


def _masked(m, x):
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=x.dtype)
    padding = torch.tensor([[False, False, i % 2 == 1] for i in range(len(x))])
    return m.head(
        m.layer(x, x, x, attn_mask=mask.isinf(), key_padding_mask=padding, is_causal=False)[0].mean(
            1
        )
    )


add(
    "MultiheadAttention, masks",
    lambda: Net(_masked, layer=nn.MultiheadAttention(4, 2, batch_first=True), head=head(4)),
    real(3, 4),
)


def _encoder(**options):
    layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, **options)
    return Net(
        lambda m, x: m.head(m.layer(x).mean(1)),
        layer=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        head=head(4),
    )


add("TransformerEncoder", lambda: _encoder(dropout=0.0), real(3, 4))
add(
    "TransformerEncoder, norm first, gelu",
    lambda: _encoder(dropout=0.0, norm_first=True, activation="gelu"),
    real(3, 4),
)
add(
    "TransformerEncoder with dropout",
    lambda: _encoder(dropout=0.2),
    real(3, 4),
    truth=Truth.own,
    traces=None,
)


def _decoder(m, x):
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=x.dtype)
    return m.head(m.layer(x, torch.tanh(x), tgt_mask=mask, tgt_is_causal=True).mean(1))


add(
    "TransformerDecoder",
    lambda: Net(
        _decoder,
        layer=nn.TransformerDecoder(
            nn.TransformerDecoderLayer(4, 2, 6, dropout=0.0, batch_first=True), 1
        ),
        head=head(4),
    ),
    real(3, 4),
)
add(
    "Transformer",
    lambda: Net(
        lambda m, x: m.head(m.layer(x, x[:, :2]).mean(1)),
        layer=nn.Transformer(4, 2, 1, 1, 6, dropout=0.0, batch_first=True),
        head=head(4),
    ),
    real(3, 4),
)


def _sdpa(causal, p):
    def run(m, x):
        q, k, v = m.qkv(x).view(len(x), 3, 3, 2, 2).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=p)
        return m.head(mixed.transpose(1, 2).flatten(2).mean(1))

    return Net(run, qkv=nn.Linear(4, 12), head=head(4))


add("scaled_dot_product_attention", lambda: _sdpa(False, 0.0), real(3, 4))
add("scaled_dot_product_attention, causal", lambda: _sdpa(True, 0.0), real(3, 4))
add(
    "scaled_dot_product_attention with dropout",
    lambda: _sdpa(False, 0.3),
    real(3, 4),
    truth=Truth.own,
    traces=None,
)
add("a decoder with tied embeddings (GPT)", lambda: _gpt(), tokens(7, 4))


def _gpt():
    table = nn.Embedding(7, 4)
    model = Net(
        lambda m, x: m.out(m.block(m.table(x)))[:, -1, :3],
        table=table,
        block=nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True),
        out=nn.Linear(4, 7, bias=False),
    )
    model.out.weight = table.weight
    return model
