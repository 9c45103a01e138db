"""A loss schedule: φ between the recorded places, its smoothing, and its file."""

import json

import pytest
import torch
from safetensors.torch import load, save

from metaloss.errors import MetalossError
from metaloss.losses.loss_schedule import (
    SCHEDULE,
    LossSchedule,
    load_loss_schedule,
    pack_schedule,
)

from .families import build

PLACES, STEPS = [0, 3, 4, 10, 20], 20


def recorded(dtype=torch.float64):
    """Return a φ of an MLP loss at five places."""
    draw = torch.Generator().manual_seed(0)
    loss = build("mlp", hidden=[3]).to(dtype)
    return loss, {
        name: torch.randn(5, *value.shape, generator=draw, dtype=dtype)
        for name, value in loss.named_parameters()
    }


def test_phi_is_exact_at_recorded_places_and_linear_between_them():
    loss, phi = recorded()
    schedule = LossSchedule(loss, PLACES, STEPS, phi)
    for number, place in enumerate(PLACES):
        assert all(torch.equal(schedule.phi(place / STEPS)[n], v[number]) for n, v in phi.items())
    for name, value in schedule.phi(6 / STEPS).items():
        torch.testing.assert_close(value, phi[name][2] * 4 / 6 + phi[name][3] * 2 / 6)


def test_every_step_of_a_run_of_the_same_length_is_a_recorded_place():
    for steps in (49, 100, 997):
        stacked = {"scale": torch.arange(steps, dtype=torch.float32)}
        schedule = LossSchedule(build("scaled").float(), range(steps), steps, stacked)
        assert all(schedule.at(s / steps).scale.item() == s for s in range(steps))


def test_smoothing_is_the_mean_of_what_is_near():
    loss, phi = recorded()
    schedule = LossSchedule(loss, PLACES, STEPS, phi, smoothing=0.4)
    for number, place in enumerate(PLACES):
        near = [n for n, other in enumerate(PLACES) if abs(other - place) <= 4]
        assert number in near
        for name, value in schedule.phi(place / STEPS).items():
            torch.testing.assert_close(value, phi[name][near].mean(0))


def test_a_constant_stays_bit_for_bit():
    loss, phi = recorded(torch.float32)
    phi = {name: value[:1].expand_as(value).clone() for name, value in phi.items()}
    schedule = LossSchedule(loss, PLACES, STEPS, phi, smoothing=0.3)
    for progress in (0, 0.123, 0.5, 1):
        found = schedule.phi(progress)
        assert all(torch.equal(found[name], value[0]) for name, value in phi.items())


@pytest.fixture
def file(tmp_path):
    loss, phi = recorded(torch.float32)
    (tmp_path / SCHEDULE).write_bytes(pack_schedule(loss, PLACES, STEPS, phi, {"task": "digits"}))
    return tmp_path / SCHEDULE


def test_a_file_gives_the_same_loss_in_a_plain_loop(file):
    loss, phi = recorded(torch.float32)
    schedule, original = load_loss_schedule(file.parent), LossSchedule(loss, PLACES, STEPS, phi)
    outputs, target = torch.randn(8, 3, requires_grad=True), torch.randint(3, (8,))
    values = []
    for step in range(4):
        value = schedule.at(step / 4)(outputs, target)
        assert torch.equal(value, original.at(step / 4)(outputs, target))
        assert torch.equal(value, schedule(outputs, target))
        values.append(value.item())
    assert len(set(values)) == 4
    (slope,) = torch.autograd.grad(value, outputs)
    assert slope.abs().sum() > 0
    assert list(schedule.phi(0.2)) == [name for name, _ in loss.named_parameters()]
    assert not any(p.requires_grad for p in schedule.parameters())


def test_a_place_outside_of_training_is_refused():
    loss, phi = recorded()
    schedule = LossSchedule(loss, PLACES, STEPS, phi)
    with pytest.raises(MetalossError, match=r"progress=1\.5: expected a share from 0 to 1"):
        schedule.at(1.5)
    with pytest.raises(MetalossError, match="smoothing=2: expected a share from 0 to 1"):
        LossSchedule(loss, PLACES, STEPS, phi, smoothing=2)


def changed(content, name, value):
    return {**content, name: value}


DAMAGE = {
    "do not ascend": lambda c: changed(c, "step", torch.tensor([0, 3, 3, 10, 20])),
    "do not ascend from 0": lambda c: changed(c, "step", torch.tensor([1, 3, 4, 10, 20])),
    "to at most 'steps'": lambda c: changed(c, "step", torch.tensor([0, 3, 4, 10, 21])),
    "has not the expected 4 values": lambda c: changed(c, "step", torch.tensor([0, 3, 4, 10])),
    "has parameters": lambda c: changed(c, "phi.other", torch.zeros(5)),
    "has shape": lambda c: {n: v.double() if n != "step" else v for n, v in c.items()},
    "NaN or infinite": lambda c: {n: v / 0 if n != "step" else v for n, v in c.items()},
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_file_is_refused_by_a_line(file, message):
    text = describing(file)
    file.write_bytes(save(DAMAGE[message](load(file.read_bytes())), metadata={"loss": text}))
    with pytest.raises(MetalossError, match=message) as caught:
        load_loss_schedule(file)
    assert "\n" not in str(caught.value)


def changed_text(file, **changes):
    return json.dumps(json.loads(describing(file)) | changes)


def test_what_is_no_schedule_is_refused(file):
    tensors = load(file.read_bytes())
    for content, message in (
        (b"", "cannot read"),
        (save(tensors), "does not describe a loss"),
        (save(tensors, metadata={"loss": "[" * 100_000}), "does not describe a loss"),
        (save(tensors, metadata={"loss": describing(file).replace('"mlp"', '"load"')}), "refused"),
        (save(tensors, metadata={"loss": changed_text(file, steps=10**400)}), "do not ascend"),
        (
            save(tensors, metadata={"loss": changed_text(file, options={"hidden": [2**62]})}),
            "a loss of these options cannot be built",
        ),
    ):
        file.write_bytes(content)
        with pytest.raises(MetalossError, match=message):
            load_loss_schedule(file)
    file.unlink()
    with pytest.raises(MetalossError, match=r"has no loss schedule \(loss_schedule.safetensors\)"):
        load_loss_schedule(file)


def describing(file):
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return opened.metadata()["loss"]
