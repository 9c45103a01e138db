"""The loss of a run with ``schedule=replay``: that of the recording, and its φ over time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from metaloss import registry
from metaloss.compose import read_file
from metaloss.compose.explain import as_written
from metaloss.compose.publish import DEFAULTS
from metaloss.config import RunConfig, Selected
from metaloss.contracts import Task, TaskDependent
from metaloss.core.parts.jury import jury_size
from metaloss.core.storage.digests import digest
from metaloss.core.storage.files import read_json, reason
from metaloss.core.storage.run_folder import CONFIG, FIRST, MADE_OF, is_group
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss
from metaloss.losses.export import family_of
from metaloss.losses.loss_schedule import SCHEDULE, LossSchedule, load_loss_schedule
from metaloss.losses.mlp import MLPLoss
from metaloss.losses.of_rows.row_weights import RowWeights
from metaloss.meta_optimizers.engine import Engine, Rule
from metaloss.schedules.replay import Replay


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A recording that a run follows.

    Attributes:
        schedule: The loss and its φ over time.
        content: The file, which is copied into the run's folder.
        said: What the user is told of it.
    """

    schedule: LossSchedule
    content: bytes
    said: str


# A φ of more numbers is not recorded: a hundred times of it would not fit into every checkpoint.
LARGEST = 100_000


def check_recordable(loss: LearnedLoss, task: Task, engine: Engine, options: Replay) -> None:
    """Raise if nothing could be replayed after a first pass, which would be lost.

    ``options`` are those of the second pass, everything else is of the first one.
    """
    if (numbers := sum(value.numel() for value in loss.parameters())) > LARGEST:
        raise MetalossError(
            f"schedule=replay: the loss has {numbers:,} parameters, which are not recorded: "
            f"expected at most {LARGEST:,}"
        )
    if engine.rule is Rule.l2rw:
        raise MetalossError(
            "schedule=replay with meta_optimizer.rule=l2rw: the weights of one batch are of no use "
            "to another run: expected schedule=online"
        )
    trusted = (task.valid, task.jury)
    jury_size(options, sum(len(rows.targets) for rows in trusted if rows))
    if options.jury and options.first.jury != options.jury:
        raise MetalossError(
            f"schedule.jury={options.jury:g} with schedule.first.jury={options.first.jury:g}: rows "
            "of the jury would move φ in the first pass: expected the same share in both"
        )


def replayed(config: RunConfig, task: Task, loss: object) -> Replayed | None:
    """Return the recording that a run follows; None without ``schedule=replay``.

    The copy in the run's own folder is used if there is one, so that a run can be resumed without
    the run that it follows.

    Raises:
        MetalossError: If the recording is missing or damaged, or does not fit the task, or if there
            is a loss of the user's own.
    """
    options = config.schedule.options
    if not isinstance(options, Replay):
        return None
    folder = _folder(config, options)
    if loss is not None:
        raise MetalossError(
            "schedule=replay with a loss of your own: the loss is that of the recording: leave it "
            "out"
        )
    schedule = load_loss_schedule(folder, smoothing=options.smoothing)
    own = schedule.loss
    said = f"the loss ({family_of(own)}) follows that of {folder}"
    offsets = getattr(own.config, "class_offsets", 0)
    if isinstance(own, MLPLoss) and offsets not in (0, task.outputs):
        # The classes of another task have shifts of their own, which nobody has learned.
        schedule = schedule.without_class_offsets()
        own, said = schedule.loss, f"{said}, without its shifts of {offsets} classes"
    if own.link is not task.link:
        raise MetalossError(
            f"schedule.source={folder}: a loss for link={own.link.name}, the task {task.name} "
            f"needs link={task.link.name}"
        )
    if own.classes not in (0, task.outputs):
        raise MetalossError(
            f"schedule.source={folder}: a loss for {own.classes} classes, the task {task.name} has "
            f"{task.outputs}"
        )
    if config.output is None or folder != Path(config.output):  # else the run is resumed
        _check_rows(folder, options, own, task)
    own.ignore_index = task.ignore_index
    # It is not changed by any start, as a loaded φ could be.
    own.loaded = False
    try:
        content = (folder / SCHEDULE).read_bytes()
    except OSError as error:
        raise MetalossError(f"cannot read {folder / SCHEDULE}: {reason(error)}") from error
    return Replayed(schedule=schedule, content=content, said=said)


def _check_rows(folder: Path, options: Replay, loss: LearnedLoss, task: Task) -> None:
    """Raise if φ is of other training rows, or if rows of the jury moved it.

    Rows are told apart by digests, which the folder of an export has not.
    """
    run = _learned_in(folder)
    made = read_json(run / MADE_OF) if run is not None else {}
    rows, counts = made.get("rows"), made.get("counts")
    if run is None or not isinstance(rows, dict) or not isinstance(counts, dict):
        return
    same, count = rows.get("train") == digest(task.train), len(task.train.targets)
    weighs = isinstance(loss, RowWeights)
    if "number" in loss.sees and (counts.get("train") != count or (weighs and not same)):
        raise MetalossError(
            f"schedule.source={folder}: loss={family_of(loss)} knows the training rows of that run "
            f"by their numbers, and the {count} of this run are others: expected the same task and "
            "seed"
        )
    schedule = read_file(run / CONFIG)["schedule"]
    moved = schedule.get("meta_batch") == "validation"
    if task.jury and same and moved and rows.get("jury") != digest(task.jury):
        raise MetalossError(
            f"schedule.jury={options.jury:g} with schedule.source={folder}: rows of the jury moved "
            f"φ in that run, which had schedule.jury={schedule.get('jury', 0)}: expected the same "
            "share in both"
        )


def _learned_in(folder: Path) -> Path | None:
    """Return the folder of the run in which a recording was learned; None if it is not known."""
    for _ in range(9):  # a replay may follow a replay
        if not (folder / CONFIG).is_file():
            return None
        schedule = read_file(folder / CONFIG).get("schedule")
        if not isinstance(schedule, dict):
            return None
        if schedule.get("name") != "replay":
            return folder
        source = Path(str(schedule["source"])) if schedule.get("source") else _first(folder)
        folder = source / folder.name if is_group(source) else source
    return None


def _first(folder: Path) -> Path:
    """Return the folder of the first pass, of a run or of one of many seeds."""
    first = folder / FIRST
    return first if first.is_dir() else folder.parent / FIRST / folder.name


def with_recorded_loss(config: RunConfig, found: Replayed, task: Task) -> RunConfig:
    """Return the config with the loss of the recording, if a source has been named.

    Otherwise the loss of the config is what the recording began with.

    Raises:
        MetalossError: If the config chooses another loss than the source, or other options.
    """
    loss = found.schedule.loss
    recorded = Selected(name=str(family_of(loss)), options=loss.config)
    own = _own_options(config.loss, recorded, task)
    if not config.schedule.options.source or own == {}:
        return config
    if config.loss.asked or config.loss != _default_loss():
        its = [f"loss.{name}={as_written(value)}" for name, value in (own or {}).items()]
        raise MetalossError(
            f"loss={config.loss.name} with schedule=replay: the loss is that of the recording, "
            f"{' '.join([recorded.name, *its])}: leave out loss and its options"
        )
    return replace(config, loss=recorded)


def _own_options(given: Selected, recorded: Selected, task: Task) -> dict[str, Any] | None:
    """Return the recorded options that differ, but for those that a task completes.

    None for another family.
    """
    if given.name != recorded.name or type(given.options) is not type(recorded.options):
        return None
    options = given.options
    whole = options.for_task(task) if isinstance(options, TaskDependent) else options
    names = [field.name for field in fields(options)]
    fixed = [name for name in names if getattr(options, name) == getattr(whole, name)]
    found = {name: getattr(recorded.options, name) for name in fixed}
    return {name: value for name, value in found.items() if getattr(options, name) != value}


def _default_loss() -> Selected:
    name = str(DEFAULTS["loss"])
    default: Any = registry.get("loss", name).config_class()
    return Selected(name=name, options=default)


def _folder(config: RunConfig, options: Replay) -> Path:
    own = None if config.output is None else Path(config.output)
    if own is not None and (own / CONFIG).is_file() and (own / SCHEDULE).is_file():
        return own
    source = Path(options.source)
    if not options.source:
        # Both passes in one command: the folder of the run, or of one of its seeds.
        assert own is not None, "the first pass has been trained"
        source = _first(own)
    if not is_group(source):
        return source
    member = source / f"seed{config.seed}"
    if not member.is_dir():
        raise MetalossError(
            f"schedule.source={source}: it has no run of seed {config.seed}: expected one for each "
            "seed, or the folder of a single run"
        )
    return member
