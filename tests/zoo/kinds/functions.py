"""Functions of torch inside of a model: linear algebra, sorting, indexing, Fourier transforms."""

import torch
from torch import nn
from torch.nn import functional as F

from ..kind import Expected, Group, Net, head, real

GROUP = Group("Functions of torch")


def add(name, function, width=6, **options):
    """A function of (rows, 6) numbers between two layers."""
    # In the short form every third of them.
    options.setdefault("heavy", len(GROUP.kinds) % 3 > 0)
    GROUP.add(
        name,
        lambda: Net(
            lambda m, x: m.head(function(m.body(x))), body=nn.Linear(4, 6), head=head(width)
        ),
        real(4),
        **options,
    )


def _matrices(h):
    a = h.view(-1, 2, 3)
    return a @ a.mT + torch.eye(2, dtype=h.dtype)


add("cumsum", lambda h: torch.tanh(h.cumsum(1)))
add("cumprod", lambda h: torch.tanh(h.cumprod(1)))
add("cummax", lambda h: h.cummax(1).values)
add(
    "logcumsumexp",
    lambda h: h.logcumsumexp(1),
    heavy=False,
)
add("logsumexp", lambda h: torch.cat([h.logsumexp(1, keepdim=True), h[:, 1:]], 1))
add("sort", lambda h: h.sort(1).values)
add("topk", lambda h: h.topk(3, 1).values, 3)
add("median", lambda h: torch.cat([h.median(1, keepdim=True).values, h[:, 1:]], 1))
add("kthvalue", lambda h: h.kthvalue(2, 1, keepdim=True).values.expand(-1, 6) * h)
add("quantile", lambda h: torch.quantile(h, 0.3, 1, keepdim=True).expand(-1, 6) * h, traces=None)
add(
    "maximum, minimum", lambda h: torch.maximum(h, 0.5 * h.flip(1)) - torch.minimum(h, h.roll(1, 1))
)
add("clamp", lambda h: h.clamp(-0.5, 0.5))
add("where", lambda h: torch.where(h > 0, h.sin(), h.exp()))
add(
    "masked_fill, triu",
    lambda h: torch.tanh(h.masked_fill(h > 0.5, 0.5)) @ torch.ones(6, 6, dtype=h.dtype).triu(),
)
add(
    "gather, scatter",
    lambda h: torch.zeros_like(h).scatter(1, h.argsort(1), h.gather(1, h.argsort(1).flip(1))),
)
add(
    "scatter_add",
    lambda h: torch.zeros(len(h), 3, dtype=h.dtype).scatter_add(
        1, torch.tensor([[0, 1, 2, 0, 1, 2]]).expand(len(h), -1), h.tanh()
    ),
    3,
)
add(
    "scatter_reduce",
    lambda h: torch.zeros(len(h), 3, dtype=h.dtype).scatter_reduce(
        1, torch.tensor([[0, 1, 2, 0, 1, 2]]).expand(len(h), -1), h, "amax", include_self=False
    ),
    3,
)
add(
    "index_put",
    lambda h: h.index_put((torch.arange(len(h)), torch.tensor([0, 1, 2, 3])), h[:, 5]).tanh(),
)
add(
    "index_select, index_add (graph)",
    lambda h: (
        torch.zeros_like(h).index_add(
            0, torch.tensor([0, 1, 1, 2]), h.index_select(0, torch.tensor([3, 0, 1, 2])).tanh()
        )
        + h
    ),
)
add(
    "boolean mask",
    lambda h: torch.zeros_like(h).masked_scatter(h > 0, h[h > 0].sin()) + h,
    traces=None,
    expected_two=Expected.reverse,
)
add(
    "take_along_dim, roll, flip",
    lambda h: h.take_along_dim(h.argsort(1), 1) * h.roll(1, 1) + h.flip(1),
)
add(
    "reshape, permute, chunk",
    lambda h: torch.cat(
        h.view(-1, 2, 3).permute(0, 2, 1).reshape(-1, 6).chunk(2, 1)[::-1], 1
    ).tanh(),
)
add(
    "stack, unbind, split",
    lambda h: torch.stack(
        [p * q for p, q in zip(h.unbind(1), reversed(h.unbind(1)), strict=True)], 1
    ),
)
add("einsum", lambda h: torch.einsum("bi,bj->bij", h, h).flatten(1).tanh(), 36)
add(
    "baddbmm, bmm",
    lambda h: torch.baddbmm(
        h.view(-1, 2, 3), h.view(-1, 2, 3), torch.ones(len(h), 3, 3, dtype=h.dtype)
    ).flatten(1),
)
add("prod", lambda h: h.view(-1, 3, 2).prod(2), 3)
add("var, std", lambda h: torch.cat([h.var(1, keepdim=True), h.std(1, keepdim=True), h], 1), 8)
add("norm", lambda h: h / h.norm(dim=1, keepdim=True))
add("atan2, hypot", lambda h: torch.atan2(h, 1 + h.flip(1) ** 2) + torch.hypot(h, h.roll(1, 1)))
add(
    "erf, lgamma, digamma",
    lambda h: torch.erf(h) + torch.lgamma(2 + h**2) + torch.digamma(2 + h**2),
)
add(
    "pow, sqrt, rsqrt, log1p, expm1",
    lambda h: (h**2 + 1).sqrt() * (h**2 + 2).rsqrt() + torch.log1p(h**2) + torch.expm1(-(h**2)),
)
add("xlogy, logaddexp", lambda h: torch.xlogy(h**2, 1 + h**2) + torch.logaddexp(h, h.flip(1)))
add("remainder, floor", lambda h: torch.remainder(h, 1.0) + h.floor() * 0.1)
add("round, sign", lambda h: h * h.sign() + h.round() * h)
add("nan_to_num", lambda h: (h / 2).nan_to_num().tanh())
add("fft, ifft", lambda h: torch.fft.ifft(torch.fft.fft(h) * torch.exp(1j * torch.arange(6))).real)
add(
    "rfft, abs, angle",
    lambda h: torch.cat([torch.fft.rfft(h).abs(), torch.fft.rfft(h)[:, 1:3].angle()], 1),
)
add("fft2", lambda h: torch.fft.fft2(h.view(-1, 2, 3)).abs().flatten(1).tanh())
add("linalg.solve", lambda h: torch.linalg.solve(_matrices(h), h.view(-1, 2, 3)).flatten(1))
add(
    "linalg.inv, det",
    lambda h: torch.cat(
        [torch.linalg.inv(_matrices(h)).flatten(1), torch.linalg.det(_matrices(h))[:, None]], 1
    ),
    5,
)
add("linalg.cholesky", lambda h: torch.linalg.cholesky(_matrices(h)).flatten(1), 4)
add(
    "cholesky_solve",
    lambda h: torch.cholesky_solve(h.view(-1, 2, 3), torch.linalg.cholesky(_matrices(h))).flatten(
        1
    ),
)
add(
    "triangular solve",
    lambda h: torch.linalg.solve_triangular(
        torch.linalg.cholesky(_matrices(h)), h.view(-1, 2, 3), upper=False
    ).flatten(1),
)
add(
    "linalg.eigh",
    lambda h: torch.linalg.eigh(_matrices(h) + torch.diag(torch.tensor([0.0, 1], dtype=h.dtype)))[
        0
    ],
    2,
)
add("linalg.svdvals", lambda h: torch.linalg.svdvals(h.view(-1, 2, 3)), 2)
add("linalg.svd", lambda h: _svd(h), 4)
add("linalg.qr", lambda h: torch.linalg.qr(h.view(-1, 3, 2))[1].flatten(1).tanh(), 4)
add(
    "linalg.slogdet", lambda h: torch.cat([torch.linalg.slogdet(_matrices(h))[1][:, None], h], 1), 7
)
add("matrix_exp", lambda h: torch.matrix_exp(0.3 * _matrices(h)).flatten(1).tanh(), 4)
add("pinv", lambda h: torch.linalg.pinv(h.view(-1, 2, 3)).flatten(1).tanh())
add(
    "lstsq by the normal equations",
    lambda h: torch.linalg.solve(_matrices(h), h.view(-1, 2, 3) @ h.view(-1, 3, 2)).flatten(1),
    4,
)
add("cosine_similarity", lambda h: F.cosine_similarity(h[:, None], h[None], dim=2).tanh(), 4)
add("pairwise_distance", lambda h: torch.cat([F.pairwise_distance(h, h.flip(1))[:, None], h], 1), 7)
add("linalg.cross", lambda h: torch.linalg.cross(h[:, :3], h[:, 3:]), 3)
add("unfold, as_strided", lambda h: (h.unfold(1, 2, 1).sum(2)).tanh(), 5)
add(
    "searchsorted, bucketize",
    lambda h: (
        h * torch.bucketize(h.detach(), torch.tensor([-1.0, 0, 1], dtype=h.dtype)).to(h.dtype)
        + h.tanh()
    ),
)
add(
    "segment means by bincount",
    lambda h: (
        torch.zeros(2, 6, dtype=h.dtype).index_add(0, torch.tensor([0, 1, 0, 1]), h)[
            torch.tensor([0, 1, 0, 1])
        ]
        / 2
        + h.tanh()
    ),
)
add("special functions: i0e, ndtr", lambda h: torch.special.i0e(h) + torch.special.ndtr(h))
add("nested where, isfinite", lambda h: torch.where(h.isfinite(), h, torch.zeros_like(h)).tanh())
add("repeat_interleave, expand", lambda h: h.repeat_interleave(2, 1).view(-1, 6, 2).tanh().prod(2))
add("diagonal, tril", lambda h: (h[:, :, None] * h[:, None]).tril().sum(2).tanh())
add(
    "multiply by a sparse matrix",
    lambda h: torch.sparse.mm(torch.eye(6, dtype=h.dtype).roll(1, 0).to_sparse(), h.T).T.tanh(),
    traces=None,
    expected=Expected.reverse,
)


def _svd(h):
    u, s, _ = torch.linalg.svd(h.view(-1, 2, 3), full_matrices=False)
    return (u * s[:, None]).pow(2).flatten(1)
