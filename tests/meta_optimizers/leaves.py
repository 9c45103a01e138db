"""The tensors of a tree: without what is not there, such as the notes of a run without a ledger."""

from torch import Tensor
from torch.utils import _pytree as pytree


def tensors_of(tree):
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
