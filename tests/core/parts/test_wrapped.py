"""Modules that are no plain model are refused in one line, wherever they are handed over."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

import metaloss
from metaloss.core.parts.wrapped import refuse_wrapped
from metaloss.errors import MetalossError
from metaloss.inner import SGD
from metaloss.losses import MLPLoss

from ..small_setups import blobs, net


@pytest.fixture
def alone(tmp_path):
    """Make a process group of one, as a user's program may have."""
    file = f"file://{tmp_path / 'group'}"
    dist.init_process_group("gloo", init_method=file, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def _model():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def _fully_sharded(mesh):
    model = _model()
    fully_shard(model[0], mesh=mesh)
    return model


IN_A_GROUP = {
    "ddp": (
        lambda mesh: nn.parallel.DistributedDataParallel(_model()),
        r"model is a DistributedDataParallel: pass the module inside \(model.module\)",
    ),
    "ddp inside": (
        lambda mesh: nn.Sequential(nn.parallel.DistributedDataParallel(_model()), nn.ReLU()),
        r"model\[0\] is a DistributedDataParallel: .* \(model\[0\].module\)",
    ),
    "fsdp": (
        lambda mesh: FullyShardedDataParallel(_model(), device_id=torch.device("cpu")),
        "model is a FullyShardedDataParallel: pass the module before FSDP",
    ),
    "fully_shard": (_fully_sharded, r"model\[0\] is a FSDPModule: pass the module"),
    "tensor parallel": (
        lambda mesh: parallelize_module(_model(), mesh, {"0": ColwiseParallel()}),
        r"model\[0\].weight is a DTensor",
    ),
    "sync": (
        lambda mesh: nn.SyncBatchNorm.convert_sync_batchnorm(_model()),
        r"model\[1\] is a SyncBatchNorm, which does not work on a CPU",
    ),
}
BY_THEMSELVES = {
    "data parallel": (
        lambda: nn.DataParallel(_model()),
        r"model is a DataParallel: pass the module inside \(model.module\)",
    ),
    "compiled": (
        lambda: torch.compile(_model()),
        r"model is compiled by torch.compile: pass the module inside \(model._orig_mod\)",
    ),
    "compiled inside": (
        lambda: nn.Sequential(torch.compile(_model())),
        r"model\[0\] is compiled by torch.compile",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(3)),
        r"model\[0\].weight has no shape yet \(nn.LazyLinear\)",
    ),
    "lazy buffer": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.LazyBatchNorm1d(affine=False)),
        r"model\[1\].running_mean has no shape yet",
    ),
    "meta": (lambda: _model().to("meta"), r"model\[0\].weight is on the meta device"),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, about FSDP and one process
@pytest.mark.parametrize("name", IN_A_GROUP)
def test_wrappers_that_speak_to_other_processes_are_refused(name, alone):
    make, message = IN_A_GROUP[name]
    with pytest.raises(MetalossError, match=message) as caught:
        refuse_wrapped(make(alone))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_modules_that_are_no_plain_ones_are_refused(name):
    make, message = BY_THEMSELVES[name]
    with pytest.raises(MetalossError, match=message) as caught:
        refuse_wrapped(make())
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_a_module_compiled_in_place_is_refused():
    module = nn.Sequential(nn.Linear(2, 2))
    module[0].compile(backend="eager")
    with pytest.raises(MetalossError, match=r"model\[0\] was compiled in place by its compile"):
        refuse_wrapped(module)


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated, and says so at every turn
def test_scripted_and_traced_modules_are_refused():
    for module in (torch.jit.script(_model()), torch.jit.trace(_model(), torch.zeros(2, 4))):
        with pytest.raises(MetalossError, match="scripted or traced by"):
            refuse_wrapped(nn.Sequential(module))


def test_a_run_and_a_meta_gradient_refuse_them_before_anything_is_written(tmp_path):
    wrapped = nn.DataParallel(net())
    with pytest.raises(MetalossError, match="model is a DataParallel"):
        metaloss.train([f"output={tmp_path / 'run'}"], task=blobs(), model=wrapped)
    assert not (tmp_path / "run").exists()
    batch = blobs().train
    with pytest.raises(MetalossError, match="model is a DataParallel"):
        metaloss.meta_gradient(
            wrapped, MLPLoss(), [batch], batch, inner=SGD(), task_loss=nn.functional.cross_entropy
        )


def test_plain_modules_pass():
    assert refuse_wrapped(net()) is None
    assert refuse_wrapped(nn.SyncBatchNorm(3)) is None
