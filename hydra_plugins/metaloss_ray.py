"""``hydra/launcher=ray``, as Hydra finds it; `metaloss.cli.ray_launcher` does the work.

PyPI's hydra-ray-launcher pins a Ray of 2022, which no Python that we support can install.
"""

# No annotations from __future__: Hydra runs this file before it is a module that could be asked for
# what their words mean.
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from metaloss.cli.ray_launcher import Jobs


@dataclass
class RayLauncherConf:
    """The launcher's options: see `metaloss.core.ray_tasks.Asked`."""

    _target_: str = "hydra_plugins.metaloss_ray.RayLauncher"
    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0


ConfigStore.instance().store(
    group="hydra/launcher", name="ray", node=RayLauncherConf, provider="metaloss"
)


class RayLauncher(Launcher):
    """Runs every job as a Ray task."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._jobs: Jobs | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """See Hydra's ``Launcher``. It is here, not in ``__init__``, that errors pass unwrapped."""
        # Hydra reads this file whenever anything is composed: what takes time is imported late.
        from metaloss.cli.ray_launcher import Jobs

        self._jobs = Jobs(self._options, hydra_context, task_function, config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """See Hydra's ``Launcher``."""
        assert self._jobs is not None
        return self._jobs.run(job_overrides, initial_job_idx)
