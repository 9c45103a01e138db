"""Files of a loss that are refused, and nothing in them is executed."""

import pickle
import shutil

import pytest
import torch

from metaloss.errors import MetalossError
from metaloss.losses.export import DESCRIPTION, WEIGHTS, load_loss


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 3, r"has format 3; this metaloss reads formats 1 and 2"),
        ("format", True, r"has format True; this metaloss reads formats 1 and 2"),
        ("format", None, "does not describe a loss: it has no 'format'"),
        ("family", "mpl", "unknown loss 'mpl': did you mean 'mlp'"),
        ("family", None, "'family' is missing or no str"),
        ("family", ["mlp"], "'family' is missing or no str"),
        ("family", "os.system", "unknown loss 'os.system'"),
        ("family", "load", "family 'load' names another file: refused"),
        ("link", "sofmax", "link 'sofmax' is unknown"),
        ("link", None, "'link' is missing or no str"),
        ("ignore_index", None, "'ignore_index' is missing or no int"),
        ("ignore_index", True, "'ignore_index' is missing or no int"),
        ("ignore_index", 2.0, "'ignore_index' is missing or no int"),
        ("ignore_index", 2**63, "ignore_index=9223372036854775808: expected a whole number from"),
        ("dtype", "object", r"dtype 'object' is unknown \(allowed: float32"),
        ("dtype", None, "'dtype' is missing or no str"),
        ("options", None, "'options' is missing or no dict"),
        ("options", {"hiden": [3]}, "options do not fit 'mlp'.*hiden"),
        ("options", {"hidden": "three"}, "options do not fit 'mlp'"),
        ("options", {"hidden": ["${oc.env:HOME}"]}, "an option has an interpolation"),
        ("options", {"hidden": [3], "beta": -1.0}, "loss.beta=-1.0: expected a positive"),
        ("options", {"hidden": [3], "beta": float("nan")}, "loss.beta=nan: expected a positive"),
        ("options", {"activation": "system"}, "options do not fit 'mlp'"),
        ("options", {"hidden": [10**30]}, "a loss of these options cannot be built"),
        ("options", {"hidden": [3], "class_offsets": 10**30}, "options cannot be built"),
        ("options", {"beta": 10**400}, "options do not fit 'mlp'"),
    ],
)
def test_a_bad_description_is_refused(folder, description, key, value, message):
    description(key, value)
    with pytest.raises(MetalossError, match=message) as caught:
        load_loss(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "{}}", "", "\x00", "NaN"])
def test_what_is_no_json_object_is_refused(folder, content):
    (folder / DESCRIPTION).write_text(content)
    with pytest.raises(MetalossError, match=r"is not JSON|does not describe a loss"):
        load_loss(folder)


def test_options_nested_too_deeply_are_refused(folder, description):
    (folder / DESCRIPTION).write_text(
        '{"format": 1, "family": "mlp", "link": "softmax", "options": {"hidden": %s}}'
        % ("[" * 900 + "]" * 900)
    )
    with pytest.raises(MetalossError, match=r"options|JSON"):
        load_loss(folder)


def test_a_huge_description_is_refused_unread(folder):
    (folder / DESCRIPTION).write_text(" " * 1_000_001)
    with pytest.raises(MetalossError, match="is larger than 1000000 bytes"):
        load_loss(folder)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / DESCRIPTION).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MetalossError, match="is not JSON"):
        load_loss(folder)


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(MetalossError, match=f"cannot read .*{name}"):
        load_loss(folder)


def test_a_pickle_in_disguise_is_not_executed(folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return (shutil.copyfile, (str(folder / DESCRIPTION), str(tmp_path / "sprung")))

    (folder / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(MetalossError, match="cannot read"):
        load_loss(folder)
    torch.save({"layers.0.weight": Trap()}, folder / WEIGHTS)
    with pytest.raises(MetalossError, match="cannot read"):
        load_loss(folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_truncated_weights_are_refused(folder, kept):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:kept])
    with pytest.raises(MetalossError, match="cannot read"):
        load_loss(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda phi: {k: v for k, v in phi.items() if k != "layers.0.bias"}, "has parameters"),
        (
            lambda phi: {**phi, "layers.9.bias": torch.zeros(1)},
            r"layers.9.bias.*expected .* for 'mlp'",
        ),
        (
            lambda phi: {k: v[:, :1].clone() for k, v in phi.items() if v.dim() == 2},
            "has parameters",
        ),
        (
            lambda phi: {**phi, "layers.0.bias": torch.zeros(4)},
            r"'layers.0.bias' has shape \(4,\) and type torch.float32, expected \(3,\)",
        ),
        (
            lambda phi: {k: v.double() for k, v in phi.items()},
            "type torch.float64, expected .* torch.float32",
        ),
        (
            lambda phi: {**phi, "layers.0.bias": torch.tensor([0.0, float("nan"), 0.0])},
            "'layers.0.bias' has values that are NaN or infinite",
        ),
        (
            lambda phi: {**phi, "layers.0.bias": torch.tensor([0.0, float("inf"), 0.0])},
            "'layers.0.bias' has values that are NaN or infinite",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, weights, change, message):
    weights(change)
    with pytest.raises(MetalossError, match=message) as caught:
        load_loss(folder)
    assert WEIGHTS in str(caught.value)


def test_a_network_that_fills_the_memory_is_not_built(folder, description):
    description("options", {"hidden": [10**7, 10**7]})  # 400 TB
    with pytest.raises(MetalossError, match=r"loss.safetensors has parameters .* for 'mlp'"):
        load_loss(folder)
