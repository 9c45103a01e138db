"""BatchNorm with the statistics of the whole batch in a pass over a part of its rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from metaloss.inner.processes.exchange import copy, gather
from metaloss.inner.processes.ranks import Share
from metaloss.types import RowSample, Tensors

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class SharedBatchNorm:
    r"""The forward pass of an ``nn.BatchNorm`` over the rows of all processes.

    A sample of the rows is normalised by the moments of the whole batch, which are known from the
    pass over all rows. The derivatives of the moments are computed from the sample.

    torch's own SyncBatchNorm has no CPU path, no forward mode and no double backward. Here each
    process computes the mean m_r and the variance v_r of its n_r values of a channel. They are
    combined by the formula of Chan, Golub & LeVeque (1979), which is precise for large means too:

        m = Σ w_r m_r,   v = Σ w_r (v_r + (m_r − m)²),   w_r = n_r / Σ n_r

    There is one exchange in the forward pass and one for each derivative. Each process uses the
    gathered statistics for its own rows, so that their cotangents are summed (``copy`` after
    ``gather``).

    Attributes:
        norm: The module whose ``forward`` is replaced.
        share: The rows of this process, set before each forward pass; None: all rows.
        known: (2, F) mean and unbiased variance of the whole batch, if the pass has a sample.
    """

    def __init__(self, norm: _BatchNorm, name: str) -> None:
        self.norm, self.name = norm, name
        self.share: Share | None = None
        self.known: Tensor | None = None
        self._total = self._sampled = 1

    def begin(self, share: Share | None, sample: RowSample | None) -> None:
        """Prepare a forward pass over a sample of a batch's rows, or over all rows."""
        self.share, self.known = share, None
        if sample is not None:
            self.known = sample.moments.get(self.name)
            self._total = sample.total
            self._sampled = len(sample.rows) if share is None else share.total

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, F, *) with every channel normalised; update the buffers in train mode."""
        if not self.norm.training and self.norm.running_mean is not None:
            return self._by(x, self.norm.running_mean, self.norm.running_var)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean, var, count = self._moments(wide)
        if self.known is not None:
            whole = count // self._sampled * self._total
            unbiased = whole / max(whole - 1, 1)
            known = self.known.to(wide.dtype)
            mean = mean + (known[0] - mean).detach()
            var = var + (known[1] / unbiased - var).detach()
        elif self.norm.training and self.norm.running_mean is not None:
            self._renew(mean, var, count)
        shape = [1, -1, *[1] * (x.dim() - 2)]
        scaled = (wide - mean.view(shape)) * torch.rsqrt(var + self.norm.eps).view(shape)
        if self.norm.weight is not None:
            scaled = scaled * self.norm.weight.view(shape)
        if self.norm.bias is not None:
            scaled = scaled + self.norm.bias.view(shape)
        return scaled.to(x.dtype)

    def _by(self, x: Tensor, mean: Tensor, var: Tensor | None) -> Tensor:
        return batch_norm(x, mean, var, self.norm.weight, self.norm.bias, False, 0.0, self.norm.eps)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return the mean (F,), the variance (F,) and the number of values per channel."""
        dims = [0, *range(2, x.dim())]
        mean, var = x.mean(dims), x.var(dims, correction=0)
        # In evaluation mode too, if there are no running statistics.
        share = self.share
        count = x.numel() // x.shape[1]
        if share is None:
            return mean, var, count
        ranks = share.ranks
        one = ranks.share(ranks.size)
        gathered = gather(torch.stack((mean, var)).unsqueeze(0), one)
        means, variances = copy({"moments": gathered}, ranks)["moments"].unbind(1)
        weights = x.new_tensor(ranks.sizes(share.total)).div(share.total).unsqueeze(1)
        mean = (weights * means).sum(0)
        var = (weights * (variances + (means - mean) ** 2)).sum(0)
        return mean, var, count // share.rows * share.total

    @torch.no_grad()
    def _renew(self, mean: Tensor, var: Tensor, count: int) -> None:
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        assert self.norm.num_batches_tracked is not None
        self.norm.num_batches_tracked.add_(1)
        kept = self.norm.running_mean.dtype
        if self.norm.momentum is None:
            pace = 1 / self.norm.num_batches_tracked.to(kept)
        else:
            pace = torch.full((), self.norm.momentum, dtype=kept, device=mean.device)
        # The running variance is the unbiased one.
        unbiased = var.detach() * (count / max(count - 1, 1))
        self.norm.running_mean.lerp_(mean.detach().to(kept), pace)
        self.norm.running_var.lerp_(unbiased.to(kept), pace)


def shared_batch_norms(module: nn.Module) -> list[SharedBatchNorm]:
    """Return a `SharedBatchNorm` for every BatchNorm of a module. A shared module counts once."""
    # A subclass may compute something else.
    return [
        SharedBatchNorm(part, name) for name, part in module.named_modules() if type(part) in _KINDS
    ]


def batch_moments(norms: list[SharedBatchNorm], before: Tensors, after: Tensors) -> Tensors:
    """Return the batch moments of a training pass, from the buffers before and after it.

    The running mean is updated by m ← m + a (m_batch − m), and the running variance in the same
    way.

    Returns:
        (2, F) mean and unbiased variance of the batch, by the name of each BatchNorm in training
        mode that has running statistics.
    """
    found = {}
    for one in norms:
        norm, prefix = one.norm, f"{one.name}." if one.name else ""
        if not norm.training or norm.running_mean is None or norm.momentum == 0:
            continue
        old, new = (
            torch.stack((buffers[f"{prefix}running_mean"], buffers[f"{prefix}running_var"]))
            for buffers in (before, after)
        )
        if norm.momentum is None:
            pace = 1 / after[f"{prefix}num_batches_tracked"].to(old.dtype)
        else:
            pace = torch.full_like(old, norm.momentum)
        found[one.name] = old + (new - old) / pace
    return found
