"""``hydra/launcher=NAME``: runs the jobs of a sweep by an executor."""

from __future__ import annotations

import io
import pickle
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from metaloss.core.execution import executor
from metaloss.core.execution.executor import Executor, LostError, StoppedError, require_folder
from metaloss.errors import MetalossError

# Hydra accepts only launchers in a package of this name.
_NAME = "hydra_plugins.metaloss.ExecutorLauncher"
_CHOICE = "hydra/launcher"

# The result of a job, and its output.
Told = tuple[JobReturn, str, str]


class ExecutorLauncher(Launcher):
    """Runs every job as a call of the executor with the name that Hydra was given."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._opened: Executor | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Set up, as Hydra's ``Launcher`` does. Hydra would wrap errors of ``__init__``.

        Raises:
            MetalossError: If an option is out of its range.
        """
        name = config.hydra.runtime.choices[_CHOICE]
        self._asked = executor.find(name, f"{_CHOICE}={name}")(**self._options)
        self._context, self._function, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Return the results of the jobs in their order; print the output of each when it ends.

        Raises:
            MetalossError: If the executor cannot be reached.
            KeyboardInterrupt: After Ctrl-C, here or in a job; the jobs have written checkpoints.
        """
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        sweep_dir = Path(str(self._config.hydra.sweep.dir)).absolute()
        opened = self._executor()
        sweep_dir.mkdir(parents=True, exist_ok=True)
        # As bytes: a worker can read them only after it has imported the files of --plugin.
        singletons = Singleton.get_state()["instances"]
        shared = pickle.dumps((self._context, self._function, self._config, singletons))
        found = dict[int, JobReturn]()
        try:
            waiting = {
                opened.submit(
                    _run, sweep_dir, shared, initial_job_idx + number, list(words)
                ): number
                for number, words in enumerate(job_overrides)
            }
            while waiting:
                # A short wait, so that Ctrl-C is noticed.
                for future in wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED).done:
                    number = waiting.pop(future)
                    found[number] = _told(future, initial_job_idx + number, job_overrides[number])
        except StoppedError as error:
            opened.stop()
            raise KeyboardInterrupt from error
        except BaseException:
            opened.stop()
            raise
        return [found[number] for number in range(len(job_overrides))]

    def _executor(self) -> Executor:
        # Kept until nobody has the launcher any more: a sweeper that searches launches many times,
        # and the processes that an executor keeps have imported everything.
        if self._opened is None:
            self._opened = self._asked.open()
            weakref.finalize(self, self._opened.stop)
        return self._opened


def offer(given: Sequence[Override]) -> None:
    """Make the executors known to Hydra as launchers; load only the one that the words choose.

    Raises:
        MetalossError: If the plugin of that executor is missing or fails to load.
    """
    chosen = {str(one.value()) for one in given if one.key_or_group == _CHOICE}
    Plugins.instance().class_name_to_class[_NAME] = ExecutorLauncher
    for name in executor.names():
        node = OmegaConf.create({})
        if name in chosen:
            node = OmegaConf.structured(executor.find(name, f"{_CHOICE}={name}"))
            OmegaConf.set_readonly(node, False)
        with open_dict(node):
            node["_target_"] = _NAME
        ConfigStore.instance().store(group=_CHOICE, name=name, node=node, provider="metaloss")


def _told(future: Future[Told], number: int, words: Sequence[str]) -> JobReturn:
    """Print the output of a job; return its result."""
    try:
        returned, out, err = future.result()
    except LostError as error:
        # As in Hydra, the other jobs go on. Reading the result of this job raises the error.
        returned = JobReturn(overrides=words, status=JobStatus.FAILED)
        returned.return_value = MetalossError(f"job {number}: {error}")
        return returned
    sys.stdout.write(out)
    sys.stdout.flush()
    sys.stderr.write(err)
    return returned


def _run(sweep_dir: Path, shared: bytes, number: int, words: list[str]) -> Told:
    """Run one job in a worker; return its result and its output."""
    require_folder(sweep_dir)
    from metaloss.cli import plugin_files  # noqa: F401 - it finds the modules of --plugin

    context, function, config, singletons = pickle.loads(shared)
    setup_globals()
    Singleton.set_state({**Singleton.get_state(), "instances": singletons})
    job = context.config_loader.load_sweep_config(config, words)
    with open_dict(job):
        job.hydra.job.id = f"{job.hydra.job.name}_{number}"
        job.hydra.job.num = number
    HydraConfig.instance().set_config(job)
    # An executor may print the output too, but sometimes without the last lines.
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
    returned.cfg = returned.hydra_cfg = None  # they are large, and no sweeper reads them
    return returned, out.getvalue(), err.getvalue()


class _Both(io.StringIO):
    """Keeps the output, and writes it to the worker's log too."""

    def __init__(self, log: TextIO) -> None:
        super().__init__()
        self._log = log

    def write(self, text: str) -> int:
        self._log.write(text)
        return super().write(text)

    def flush(self) -> None:
        self._log.flush()
