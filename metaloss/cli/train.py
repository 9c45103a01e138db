"""``metaloss train``: one run, a sweep of runs, or a resumed run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from metaloss.cli import plugin_files
from metaloss.cli.options import Plugins, Words, heard, interrupted, report_all
from metaloss.errors import MetalossError

_BESIDE_RESUME = ("steps", "tracker", "device")


def train(
    words: Words = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Begin from the config.yaml of a run.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Continue a run that was stopped.")
    ] = None,
    multirun: Annotated[
        bool,
        typer.Option(
            "--multirun",
            help="Train one run for each combination of values that are separated by commas.",
        ),
    ] = False,
    cfg: Annotated[
        bool, typer.Option("--cfg", help="Print the complete configuration and exit.")
    ] = False,
    plugin: Plugins = None,
) -> int:
    """Train a network under a fixed or learned loss.

    All settings have defaults; metaloss list shows the parts and their options. KEY=VALUE follows
    Hydra's grammar. The exit status is 0 for a finished run, 2 for a bad request, 3 for a run that
    diverged and 130 after Ctrl-C.
    """
    from metaloss.allocator import keep_freed_memory

    keep_freed_memory()
    flags = {"--config": config, "--resume": resume, "--multirun": multirun, "--cfg": cfg}
    given = [flag for flag, value in flags.items() if value]
    if (resume or (multirun and cfg)) and len(given) > 1:
        raise MetalossError(f"{' and '.join(given)} cannot be combined")
    paths = plugin or []
    hashes = plugin_files.load(paths)
    words = words or []
    try:
        if resume is not None:
            return _resume(resume, words, hashes)
        if multirun:
            from metaloss.cli.sweep import sweep
            from metaloss.core.distributed.launch import refuse_several

            refuse_several("--multirun", "start it by itself, without a launcher")

            return sweep(words, config, paths)
        return _train(words, config, cfg, hashes)
    except KeyboardInterrupt as interrupt:
        return interrupted(interrupt)


def _train(words: list[str], file: Path | None, only_print: bool, hashes: Mapping[str, str]) -> int:
    from metaloss.compose import compose, refuse_unused, to_yaml

    config = compose(words, file)
    refuse_unused(config, words)
    if only_print:
        if heard():
            print(to_yaml(config), end="")
        return 0
    from metaloss.core.runs.run import train_runs

    return report_all(train_runs(config, plugins=hashes))


def _resume(folder: Path, words: list[str], hashes: Mapping[str, str]) -> int:
    from metaloss.compose import compose
    from metaloss.compose.words import parse
    from metaloss.core.storage.run_folder import CONFIG, PASSES, members_of

    keys = [override.key_or_group for override in parse(words)]
    others = [key for key in keys if key.partition(".")[0] not in _BESIDE_RESUME]
    if others:
        raise MetalossError(
            f"--resume with {', '.join(others)}: expected only steps, tracker and device"
        )
    files = [path / CONFIG for path in members_of(folder)] or [folder / PASSES]
    if not files[0].is_file():
        raise MetalossError(
            f"--resume {folder}: expected the folder of a run; it has no config.yaml"
        )
    changes = {}
    if words:
        config = compose(words, files[0])
        changes = {name: getattr(config, name) for name in {key.partition(".")[0] for key in keys}}
    from metaloss.core.runs.passes import resume_passes

    return report_all(resume_passes(folder, changes, plugins=hashes))
