"""A meta-gradient written out by hand: torch's update formulas, with options for each parameter."""

import torch
from torch.nn import functional as F

DEFAULTS = {
    "sgd": {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0},
    "adam": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "decoupled": False},
    "rmsprop": {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0},
}


def slope_of(model, loss, pairs, meta, kind, options, clip=None):
    """Return d(cross-entropy after the steps)/dφ by autograd through every operation.

    ``options`` has a dictionary for each parameter by name; ``lr`` may be a list with a rate for
    each step. A parameter without one does not move.
    """
    phi = {name: p.detach().clone().requires_grad_() for name, p in loss.named_parameters()}
    params = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    memory = {name: {} for name in params}
    for step, (inputs, targets) in enumerate(pairs):
        outputs = torch.func.functional_call(model, params, (inputs,))
        value = torch.func.functional_call(loss, phi, (outputs, targets))
        grads = torch.autograd.grad(value, list(params.values()), create_graph=True)
        if clip is not None:
            size = torch.sqrt(sum((g**2).sum() for g in grads))
            grads = [g * torch.clamp(clip / (size + 1e-6), max=1.0) for g in grads]
        params = {
            name: _moved(kind, p, g, memory[name], options[name], step)
            if name in options
            else p.clone()
            for (name, p), g in zip(params.items(), grads, strict=True)
        }
    outputs = torch.func.functional_call(model, params, (meta[0],))
    value = F.cross_entropy(outputs, meta[1])
    return dict(zip(phi, torch.autograd.grad(value, list(phi.values())), strict=True))


def _moved(kind, p, g, memory, options, step):
    own = {**DEFAULTS[kind], **options}
    lr = own["lr"][step] if isinstance(own["lr"], list) else own["lr"]
    decay = own["weight_decay"]
    if kind == "adam" and own["decoupled"]:
        p = p * (1 - lr * decay)
    else:
        g = g + decay * p
    if kind == "sgd":
        if own["momentum"]:
            before = memory.get("v")
            share = 1 - own["dampening"] if before is not None else 1.0
            memory["v"] = share * g if before is None else own["momentum"] * before + share * g
            g = g + own["momentum"] * memory["v"] if own["nesterov"] else memory["v"]
        return p - lr * g
    if kind == "adam":
        (one, two), count = own["betas"], step + 1
        memory["m"] = one * memory.get("m", 0) + (1 - one) * g
        memory["s"] = two * memory.get("s", 0) + (1 - two) * g**2
        root = (memory["s"] / (1 - two**count)).sqrt()
        return p - lr * memory["m"] / (1 - one**count) / (root + own["eps"])
    memory["s"] = own["alpha"] * memory.get("s", 0) + (1 - own["alpha"]) * g**2
    g = g / (memory["s"].sqrt() + own["eps"])
    if own["momentum"]:
        memory["b"] = own["momentum"] * memory.get("b", 0) + g
        g = memory["b"]
    return p - lr * g
