"""BatchNorm whose statistics are the whole batch's where a pass has some of its rows."""

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
    r"""What an ``nn.BatchNorm`` does over all processes; without a share it is just that.

    A sample of a batch's rows is normalised by the whole batch's moments, which are known from the
    pass that had all rows. Only their derivatives are the sample's.

    torch's own SyncBatchNorm has no CPU path, no forward mode and no double backward. Here each
    process gives its rows' mean m_r and mean square deviation v_r over n_r values of a channel, and
    all compute the whole batch's by the formula of Chan, Golub & LeVeque (1979), which loses no
    digits where the mean is large:

        m = Σ w_r m_r,   v = Σ w_r (v_r + (m_r − m)²),   w_r = n_r / Σ n_r

    One exchange forward, one for each derivative: the statistics are gathered to be used by each
    process on its own rows, so that their cotangents are added up (``copy`` after ``gather``).

    Attributes:
        norm: The module, in whose place :meth:`forward` runs.
        share: The process's rows, set before each forward pass.
        known: (2, F) mean and unbiased variance of the whole batch, where a pass has a sample.
    """

    def __init__(self, norm: _BatchNorm, name: str) -> None:
        self.norm, self.name = norm, name
        self.share: Share | None = None
        self.known: Tensor | None = None
        self._total = self._sampled = 1

    def begin(self, share: Share | None, sample: RowSample | None) -> None:
        """Begin a forward pass over a sample of a batch's rows, or over all of them."""
        self.share, self.known = share, None
        if sample is not None:
            self.known = sample.moments.get(self.name)
            self._total = sample.total
            self._sampled = len(sample.rows) if share is None else share.total

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, F, *) with every channel normalised; buffers are renewed in train mode."""
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
        """Return the mean (F,), the mean square deviation (F,) and the number of values of each."""
        dims = [0, *range(2, x.dim())]
        mean, var = x.mean(dims), x.var(dims, correction=0)
        # In evaluation mode too, where there are no running statistics.
        share = self.share
        count = x.numel() // x.shape[1]
        if share is None:
            return mean, var, count
        ranks = share.ranks
        one = ranks.share(ranks.size)
        told = gather(torch.stack((mean, var)).unsqueeze(0), one)
        means, variances = copy({"told": told}, ranks)["told"].unbind(1)
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
    """Return one for every BatchNorm in a module; one under two names counts once."""
    # A class of the user's that derives from one of them may do something else.
    return [
        SharedBatchNorm(part, name) for name, part in module.named_modules() if type(part) in _KINDS
    ]


def batch_moments(norms: list[SharedBatchNorm], before: Tensors, after: Tensors) -> Tensors:
    """Return what each BatchNorm saw in a training pass, from its buffers before and after it.

    The running mean moves by m ← m + a (m_batch − m), and the running variance likewise.

    Returns:
        (2, F) mean and unbiased variance of the batch, by the names of the norms in train mode that
        have running statistics.
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
