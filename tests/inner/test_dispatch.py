"""An error inside PyTorch leaves its dispatcher as it was."""

import pytest
import torch

from metaloss.inner.dispatch import dispatch_kept

PYTHON = torch._C.DispatchKey.Python


def excluded():
    return torch._C._dispatch_tls_is_dispatch_key_excluded(PYTHON)


def fails_with_a_guard(kind=RuntimeError):
    """Do what torch.Tensor.__repr__ does: hold a guard in a local variable."""
    with torch._C._DisableTorchDispatch():
        guard = torch._C._DisableFuncTorch()
        raise kind(f"an error under {type(guard).__name__}")


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_guards_that_outlive_an_error_do_not_change_the_dispatcher(kind):
    with pytest.raises(kind, match="an error under"), dispatch_kept():
        fails_with_a_guard(kind)
    assert not excluded()


def fails_twice():
    try:
        fails_with_a_guard()
    except RuntimeError as error:
        raise ValueError("second") from error


def test_the_error_and_its_causes_arrive_unchanged():
    with pytest.raises(ValueError, match="second") as said, dispatch_kept():
        fails_twice()
    assert "an error under" in str(said.value.__cause__)
    del said
    assert not excluded()


def test_torch_still_has_the_fault_that_this_is_for():
    """If this fails, the module metaloss.inner.dispatch is no longer needed."""
    included = torch._C._dispatch_tls_local_include_set()
    before = torch._C._dispatch_tls_local_exclude_set()
    # At its end, the guard restores what the fault leaves behind for other tests.
    with torch._C._ForceDispatchKeyGuard(included, before):
        try:
            fails_with_a_guard()
        except RuntimeError as error:
            kept = error
        del kept
        assert excluded()
    assert not excluded()
