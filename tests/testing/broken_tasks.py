"""Tasks that each break one rule."""

import random
from dataclasses import replace

import torch

from metaloss.data.images.digits import Digits
from metaloss.data.tables.diabetes import Diabetes
from metaloss.testing import TaskChecks
from metaloss.types import Batch

from .specimens import specimen


def changed(change, source=Digits):
    class Changed(source):
        def build(self, seed):
            return change(super().build(seed), seed)

    return Changed()


@specimen(TaskChecks, "test_rows_fit_the_link", "class indices outside")
def too_many_classes():
    return changed(lambda task, _: replace(task, outputs=9))


@specimen(TaskChecks, "test_rows_fit_the_link", "expected (n, C)")
def flat_targets():
    def change(task, _):
        return replace(task, test=Batch(task.test.inputs, task.test.targets[:, 0]))

    return changed(change, Diabetes)


@specimen(TaskChecks, "test_rows_are_finite_and_differ", "train inputs")
def with_nan():
    def change(task, _):
        inputs = task.train.inputs.clone()
        inputs[3] = float("nan")
        return replace(task, train=Batch(inputs, task.train.targets))

    return changed(change)


@specimen(TaskChecks, "test_rows_are_finite_and_differ", "all targets are the same")
def one_class():
    def change(task, _):
        return replace(task, valid=Batch(task.valid.inputs, torch.zeros_like(task.valid.targets)))

    return changed(change)


@specimen(TaskChecks, "test_no_row_is_in_two_parts", "rows are both in train and in test")
def leaking():
    return changed(lambda task, _: replace(task, test=Batch(*(v[:50] for v in task.train))))


@specimen(TaskChecks, "test_the_seed_decides_everything", "another seed")
class DeafToSeeds(Digits):
    def build(self, seed):
        return super().build(0)


@specimen(TaskChecks, "test_the_seed_decides_everything", "Python's global random state")
class Shuffling(Digits):
    def build(self, seed):
        random.shuffle([1, 2, 3])
        return super().build(seed)


@specimen(TaskChecks, "test_losses_and_metrics_are_numbers", "no gradient")
def flat_task_loss():
    return changed(lambda task, _: replace(task, task_loss=lambda z, y: (0 * z).sum() + 1))


@specimen(TaskChecks, "test_losses_and_metrics_are_numbers", "goal=")
def aimless():
    return changed(lambda task, _: replace(task, goal="lower"))


@specimen(TaskChecks, "test_no_constant_beats_the_constant_loss", "constant_loss=5")
def modest():
    return changed(lambda task, _: replace(task, constant_loss=5.0))


@specimen(TaskChecks, "test_rows_are_on_the_cpu", "records gradients")
def recording():
    def change(task, _):
        inputs = task.train.inputs.clone().requires_grad_()
        return replace(task, train=Batch(inputs, task.train.targets))

    return changed(change)


@specimen(TaskChecks, "test_augmentation_is_a_pure_function", "whatever the key")
def deaf_augmentation():
    return changed(lambda task, _: replace(task, augment=lambda inputs, key: inputs.flip(-1)))


@specimen(TaskChecks, "test_augmentation_is_a_pure_function", "torch's global random state")
def augmentation_by_the_global_generator():
    def augment(inputs, key):
        return inputs + torch.randn_like(inputs)

    return changed(lambda task, _: replace(task, augment=augment))


@specimen(TaskChecks, "test_rows_fit_the_link", "inputs in torch.uint8")
def bytes_as_inputs():
    def change(task, _):
        inputs = task.train.inputs.to(torch.uint8)
        return replace(task, train=Batch(inputs, task.train.targets))

    return changed(change)
