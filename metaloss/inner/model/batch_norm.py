"""BatchNorm whose statistics are the whole batch's where its rows are spread over processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from metaloss.inner.processes.exchange import copy, gather
from metaloss.inner.processes.ranks import Share

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class SharedBatchNorm:
    r"""What an ``nn.BatchNorm`` does over all processes; without a share it is just that.

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
    """

    def __init__(self, norm: _BatchNorm) -> None:
        self.norm = norm
        self.share: Share | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, F, *) with every channel normalised; buffers are renewed in train mode."""
        if not self.norm.training and self.norm.running_mean is not None:
            return self._by(x, self.norm.running_mean, self.norm.running_var)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean, var, count = self._moments(wide)
        if self.norm.training and self.norm.running_mean is not None:
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
        SharedBatchNorm(part)  # type: ignore[arg-type]
        for part in module.modules()
        if type(part) in _KINDS
    ]
