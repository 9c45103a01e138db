"""``hydra/launcher=ray``: the jobs of a sweep, each a Ray task."""

from __future__ import annotations

import io
import pickle
import sys
import weakref
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from metaloss.core.search.ray_cluster import require_ray
from metaloss.core.search.ray_tasks import Asked, LostError, Place, StoppedError, Tasks
from metaloss.errors import MetalossError

# Hydra takes no launcher by a name of any other package.
_NAME = "hydra_plugins.metaloss.RayLauncher"


@dataclass
class RayLauncherConf:
    """The launcher's options: see `metaloss.core.search.ray_tasks.Asked`."""

    _target_: str = _NAME
    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0


class RayLauncher(Launcher):
    """Runs every job as a Ray task.

    PyPI's hydra-ray-launcher pins a Ray of 2022, which no Python that we support can install.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._opened: Tasks | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """See Hydra's ``Launcher``. It is here, not in ``__init__``, that errors pass unwrapped.

        Raises:
            MetalossError: If an option is out of its range, or Ray is not installed.
        """
        require_ray("hydra/launcher=ray")
        self._asked = Asked(**self._options)
        self._context, self._function, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Return how the jobs ended, in their order; print what each printed as soon as it ends.

        Args:
            job_overrides: The words of each job.
            initial_job_idx: The first one's number.

        Raises:
            MetalossError: If no cluster answers.
            KeyboardInterrupt: After Ctrl-C, here or in a job; the jobs have written checkpoints.
        """
        from ray import cloudpickle

        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        sweep_dir = Path(str(self._config.hydra.sweep.dir)).absolute()
        tasks = self._tasks()
        sweep_dir.mkdir(parents=True, exist_ok=True)
        # Bytes, which the worker reads once it knows of the user's own files.
        shared = tasks.put(
            cloudpickle.dumps((self._context, self._function, self._config, Singleton.get_state()))
        )
        place, found = Place(), dict[int, JobReturn]()
        try:
            waiting = {
                tasks.begin(_run, place, sweep_dir, shared, initial_job_idx + n, list(words)): n
                for n, words in enumerate(job_overrides)
            }
            while waiting:
                for reference in tasks.ended(list(waiting)):
                    number = waiting.pop(reference)
                    found[number] = _told(
                        tasks, reference, initial_job_idx + number, job_overrides[number]
                    )
        except StoppedError as error:
            tasks.stop()
            raise KeyboardInterrupt from error
        except BaseException:
            tasks.stop()
            raise
        return [found[number] for number in range(len(job_overrides))]

    def _tasks(self) -> Tasks:
        # Kept until nobody has the launcher any more: a sweeper that searches launches many times,
        # and the workers that Ray keeps have imported everything.
        if self._opened is None:
            self._opened = Tasks(self._asked)
            weakref.finalize(self, self._opened.close)
        return self._opened


def offer() -> None:
    """Make ``hydra/launcher=ray`` known to Hydra."""
    Plugins.instance().class_name_to_class[_NAME] = RayLauncher
    ConfigStore.instance().store(
        group="hydra/launcher", name="ray", node=RayLauncherConf, provider="metaloss"
    )


def _told(tasks: Tasks, reference: Any, number: int, words: Sequence[str]) -> JobReturn:
    """Print what a job printed; return how it ended."""
    try:
        returned, out, err = tasks.result(reference)
    except LostError as error:
        # As Hydra has it: the other jobs go on, and whoever reads this one's result gets the error.
        returned = JobReturn(overrides=words, status=JobStatus.FAILED)
        returned.return_value = MetalossError(f"job {number}: {error}")
        return returned
    sys.stdout.write(out)
    sys.stdout.flush()
    sys.stderr.write(err)
    assert isinstance(returned, JobReturn)
    return returned


def _run(
    place: Place, sweep_dir: Path, shared: bytes, number: int, words: list[str]
) -> tuple[JobReturn, str, str]:
    """Run one job, in a worker; return how it ended and what it printed."""
    place.enter(sweep_dir)
    from metaloss.cli import plugin_files  # noqa: F401 - it finds the modules of --plugin

    context, function, config, state = pickle.loads(shared)
    setup_globals()
    Singleton.set_state(state)
    job = context.config_loader.load_sweep_config(config, words)
    with open_dict(job):
        job.hydra.job.id = f"{job.hydra.job.name}_{number}"
        job.hydra.job.num = number
    HydraConfig.instance().set_config(job)
    # Ray would show it too, but each line with a prefix, and not always the last ones.
    with (
        redirect_stdout(_Both(sys.stdout)) as out,
        redirect_stderr(_Both(sys.stderr)) as err,
    ):
        returned = run_job(
            hydra_context=context,
            task_function=function,
            config=job,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    return returned, out.getvalue(), err.getvalue()


class _Both(io.StringIO):
    """Keeps what is written, and writes it to the worker's log as well, where people may watch."""

    def __init__(self, log: TextIO) -> None:
        super().__init__()
        self._log = log

    def write(self, text: str) -> int:
        self._log.write(text)
        return super().write(text)

    def flush(self) -> None:
        self._log.flush()
