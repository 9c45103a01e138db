"""Losses of rows against the formulas of their papers, computed row by row in plain numbers."""

import math

import pytest
import torch
from torch.nn import functional as F

from metaloss.errors import MetalossError
from metaloss.losses.of_rows.bi_tempered import BiTempered, BiTemperedConfig
from metaloss.losses.of_rows.class_margins import LDAM, BalancedSoftmax, CountsConfig, LDAMConfig
from metaloss.losses.of_rows.correction import CorrectionConfig, ForwardCorrection, confusion
from metaloss.losses.of_rows.meta_weight import MetaWeight, MetaWeightConfig
from metaloss.losses.of_rows.row_weights import RowWeights, RowWeightsConfig
from metaloss.losses.of_rows.soft_targets import SoftTargets, SoftTargetsConfig
from metaloss.losses.of_rows.softened import (
    Bootstrap,
    BootstrapConfig,
    EarlyLearning,
    EarlyLearningConfig,
    Source,
)
from metaloss.losses.of_rows.symmetric import SymmetricConfig, SymmetricCrossEntropy
from metaloss.types import Row

B, C = 5, 3
COUNTS = [100.0, 20.0, 4.0]
DRAW = torch.Generator().manual_seed(0)
OUTPUTS = 2 * torch.randn(B, C, generator=DRAW, dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1, 0])
AVERAGE = torch.rand(B, C, generator=DRAW, dtype=torch.float64).softmax(1) * 0.8
PROGRESS, NUMBERS = torch.full((B,), 0.9), torch.tensor([3, 0, 9, 1, 2])
ROW = Row(average=AVERAGE, progress=PROGRESS, number=NUMBERS)


def shares(row):
    """Return the softmax of one row of outputs, as plain numbers."""
    powers = [math.exp(value) for value in OUTPUTS[row].tolist()]
    return [power / sum(powers) for power in powers]


def plain(row):
    return -math.log(shares(row)[LABELS[row]])


def symmetric(loss):
    values = [0.3 * plain(i) - 0.7 * -5.0 * (1 - shares(i)[LABELS[i]]) for i in range(B)]
    return sum(values) / B


def balanced(loss):
    total = 0.0
    for i in range(B):
        p = shares(i)
        total -= math.log(
            COUNTS[LABELS[i]] * p[LABELS[i]] / sum(n * q for n, q in zip(COUNTS, p, strict=True))
        )
    return total / B


def ldam(loss):
    top = weight_sum = 0.0
    weights = [(1 - 0.99) / (1 - 0.99**n) for n in COUNTS]
    for i in range(B):
        y = int(LABELS[i])
        moved = OUTPUTS[i].tolist()
        moved[y] -= 0.5 * COUNTS[y] ** -0.25 / COUNTS[2] ** -0.25
        value = math.log(sum(math.exp(2 * (z - moved[y])) for z in moved))
        top, weight_sum = top + weights[y] * value, weight_sum + weights[y]
    return top / weight_sum


def weighed(loss, i, group=0):
    """Return V(ℓ) of a row by the network's numbers."""
    first, last = loss.first, loss.last
    hidden = [
        max(0.0, w * plain(i) + b)
        for w, b in zip(first.weight[:, 0].tolist(), first.bias.tolist(), strict=True)
    ]
    inside = sum(w * h for w, h in zip(last.weight[group].tolist(), hidden, strict=True))
    return 1 / (1 + math.exp(-inside - last.bias[group].item()))


def mwn(loss):
    return sum(weighed(loss, i) * plain(i) for i in range(B)) / B


def mwn_normalized(loss):
    weights = [weighed(loss, i) for i in range(B)]
    return sum(w * plain(i) for i, w in enumerate(weights)) / sum(weights)


def cmw(loss):
    groups = [0, 1, 1]
    return sum(weighed(loss, i, groups[LABELS[i]]) * plain(i) for i in range(B)) / B


MATRIX = [0.7, 0.2, 0.1, 0.05, 0.9, 0.05, 0.3, 0.3, 0.4]


def corrected(loss):
    total = 0.0
    for i in range(B):
        y, trusted = int(LABELS[i]), NUMBERS[i] >= 3
        noisy = sum(MATRIX[3 * k + y] * p for k, p in enumerate(shares(i)))
        total += plain(i) if trusted else -math.log(noisy)
    return total / B


def elr(loss):
    total = 0.0
    for i in range(B):
        p = shares(i)
        t = [0.6 * a + 0.4 * q for a, q in zip(AVERAGE[i].tolist(), p, strict=True)]
        total += plain(i) + 2.0 * math.log(1 - sum(a * q for a, q in zip(p, t, strict=True)))
    return total / B


def bootstrap(loss):
    total = 0.0
    for i in range(B):
        for k, p in enumerate(shares(i)):
            total -= (0.8 * (k == int(LABELS[i])) + 0.2 * p) * math.log(p)
    return total / B


def bootstrap_memory(loss):
    total = 0.0
    for i in range(B):
        average = AVERAGE[i].tolist()
        for k, p in enumerate(shares(i)):
            own = (1 - 0.2 * sum(average)) * (k == int(LABELS[i]))
            total -= (own + 0.2 * average[k]) * math.log(p)
    return total / B


def free(loss):
    weights = dict(enumerate((2 * loss.weights.sigmoid()).tolist()))
    return sum(weights.get(int(NUMBERS[i]), 1.0) * plain(i) for i in range(B)) / B


def bi_tempered(loss):
    """The public recursion for the normalisation, until it stands still."""
    t1, t2 = 0.7, 1.4
    total = 0.0
    for i in range(B):
        z = OUTPUTS[i].tolist()
        top = max(z)
        steps = [value - top for value in z]
        for _ in range(200):
            mass = sum((1 + (1 - t2) * a) ** (1 / (1 - t2)) for a in steps)
            steps = [(value - top) * mass ** (1 - t2) for value in z]
        level = -((1 / mass) ** (1 - t2) - 1) / (1 - t2) + top
        p = [(1 + (1 - t2) * (value - level)) ** (1 / (1 - t2)) for value in z]
        assert sum(p) == pytest.approx(1)
        for k, q in enumerate(p):
            y = float(k == int(LABELS[i]))
            log_q, log_y = ((x ** (1 - t1) - 1) / (1 - t1) for x in (q, y))
            total += y * (log_y - log_q) - (y ** (2 - t1) - q ** (2 - t1)) / (2 - t1)
    return total / B


def soft_targets(loss):
    total = 0.0
    for i in range(B):
        p, a, label = shares(i), AVERAGE[i].tolist(), int(LABELS[i])
        for c in range(C):
            seen = [float(c == label), p[c], a[c], p[label], a[label]]
            hidden = torch.tensor([4 * (value - 0.5) for value in seen], dtype=torch.float64)
            for layer in loss.layers:
                hidden = layer.weight @ hidden + layer.bias
                hidden = hidden / (1 + (-hidden).exp())
            w, m, u = (
                3 * math.tanh(v / 3) for v in (loss.last.weight @ hidden + loss.last.bias).tolist()
            )
            y = 0.8 * seen[0] + 0.2 / C
            target = math.exp(w) * y * p[c] / (p[c] + 2.0 / C) + m * p[c] + u * a[c]
            total -= target * math.log(p[c])
    return total / B


def soft_targets_of_new_rows(loss):
    """Cross-entropy with smoothed labels, where nothing was learned and r = 0."""
    return (
        sum(
            -(0.9 * math.log(shares(i)[LABELS[i]]) + 0.1 * sum(map(math.log, shares(i))) / C)
            for i in range(B)
        )
        / B
    )


CASES = [
    (symmetric, SymmetricCrossEntropy, SymmetricConfig(alpha=0.3, beta=0.7, log_zero=-5.0)),
    (bi_tempered, BiTempered, BiTemperedConfig(t1=0.7, t2=1.4)),
    (balanced, BalancedSoftmax, CountsConfig(counts=COUNTS)),
    (ldam, LDAM, LDAMConfig(counts=COUNTS, scale=2.0, drw_beta=0.99)),
    (mwn, MetaWeight, MetaWeightConfig(hidden=7)),
    (mwn_normalized, MetaWeight, MetaWeightConfig(hidden=7, normalize=True)),
    (cmw, MetaWeight, MetaWeightConfig(hidden=7, clusters=2, cluster_of=[0, 1, 1])),
    (corrected, ForwardCorrection, CorrectionConfig(matrix=MATRIX, trusted_from=3)),
    (elr, EarlyLearning, EarlyLearningConfig(strength=2.0, decay=0.6)),
    (soft_targets, SoftTargets, SoftTargetsConfig(hidden=[4, 3], smoothing=0.2, robustness=2.0)),
    (soft_targets_of_new_rows, SoftTargets, SoftTargetsConfig(robustness=0.0)),
    (bootstrap, Bootstrap, BootstrapConfig(trust=0.8)),
    (bootstrap_memory, Bootstrap, BootstrapConfig(trust=0.8, source=Source.memory)),
    (free, RowWeights, RowWeightsConfig(rows=4)),
]


def made(family, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = family(config).double()
        if family is RowWeights:
            torch.nn.init.normal_(loss.weights)
        if family is SoftTargets and config.robustness:
            torch.nn.init.normal_(loss.last.weight)
        return loss


@pytest.mark.parametrize(("formula", "family", "config"), CASES, ids=[c[0].__name__ for c in CASES])
def test_the_loss_is_its_formula(formula, family, config):
    loss = made(family, config)
    assert loss(OUTPUTS, LABELS, row=ROW).item() == pytest.approx(formula(loss), rel=2e-7)


@pytest.mark.parametrize(("formula", "family", "config"), CASES, ids=[c[0].__name__ for c in CASES])
def test_derivatives_equal_differences_at_constant_rows(formula, family, config):
    loss = made(family, config)
    phi = {name: p.detach().clone().requires_grad_() for name, p in loss.named_parameters()}
    row = ROW._replace(outputs=OUTPUTS + 0.3)

    def value(outputs, *values):
        at = dict(zip(phi, values, strict=True))
        return torch.func.functional_call(loss, at, (outputs, LABELS), {"row": row})

    points = (OUTPUTS.clone().requires_grad_(), *phi.values())
    torch.autograd.gradcheck(value, points, fast_mode=True)
    torch.autograd.gradgradcheck(value, points, fast_mode=True)


def test_before_the_last_fifth_ldam_weighs_all_classes_alike():
    late, early = (
        made(LDAM, LDAMConfig(counts=COUNTS, drw=drw))(OUTPUTS, LABELS, row=ROW)
        for drw in (0.95, 1.0)
    )
    assert torch.equal(late, early)


def test_the_confusion_of_a_perfect_network_is_the_noise():
    draw = torch.Generator().manual_seed(1)
    true = torch.randint(C, (4000,), generator=draw)
    noise = torch.tensor(MATRIX).view(C, C)
    logits = noise[true].log()  # predicts the noisy label's distribution
    torch.testing.assert_close(confusion(logits, true), noise)
    found = ForwardCorrection(CorrectionConfig(matrix=confusion(logits, true).flatten().tolist()))
    torch.testing.assert_close(found.matrix, noise, rtol=1e-5, atol=1e-6)


def test_balanced_softmax_begins_as_logit_adjustment():
    logs = torch.tensor(COUNTS).double().log()
    expected = F.cross_entropy(OUTPUTS + logs, LABELS)
    found = made(BalancedSoftmax, CountsConfig(counts=COUNTS))(OUTPUTS, LABELS)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_the_heaviest_tails_have_finite_slopes_in_single_precision():
    outputs = OUTPUTS.float().requires_grad_()
    loss = BiTempered(BiTemperedConfig(t2=20.0))
    slopes = torch.autograd.grad(loss(outputs, LABELS), (outputs, *loss.parameters()))
    assert all(bool(slope.isfinite().all()) for slope in slopes)
    with pytest.raises(MetalossError, match=r"^loss.t2=20.5: expected a number in \(1, 20\]"):
        BiTemperedConfig(t2=20.5)


@pytest.mark.parametrize("classes", [1, -3])
def test_too_few_classes_are_refused_as_given(classes):
    with pytest.raises(MetalossError, match=f"^loss.classes={classes}: expected"):
        ForwardCorrection(CorrectionConfig(classes=classes))
