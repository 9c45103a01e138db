"""Runs that record φ, and runs that follow a recording."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import metaloss
from metaloss import resume_run
from metaloss.contracts import Plan, Progress
from metaloss.core.storage.run_folder import read_summary
from metaloss.core.training.recording import LARGEST, Recording
from metaloss.errors import DivergedError, MetalossError
from metaloss.losses.export import WEIGHTS
from metaloss.losses.loss_schedule import SCHEDULE, load_loss_schedule, pack_schedule
from metaloss.schedules import Online

from ..interrupted_runs import interrupting
from ..same_ending import assert_same_ending
from ..small_setups import blobs, fast, line, net, train

EVERY = ("steps=24", "record_phi=24")
L2RW = ("loss=row_weights", "loss.linear=true", "meta_optimizer.rule=l2rw", "start=keep")
SAME = ("schedule=replay", "schedule.smoothing=0", "schedule.train_on=train", "steps=24")
KINDS = {
    "online": (),
    "next": ("schedule.meta_batch=next", "inner=adam"),
    "windows after offline": (
        "schedule.unroll=3",
        "schedule.period=5",
        "schedule.offline_steps=2",
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a function that gives the folder of an online run with φ recorded at every step."""
    done = {}

    def get(kind="online"):
        if kind not in done:
            folder = tmp_path_factory.mktemp("source") / "run"
            train(folder, *EVERY, *KINDS[kind])
            done[kind] = folder
        return done[kind]

    return get


def theta(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_of_every_step_on_the_same_rows_is_the_run_itself(source, tmp_path, kind):
    words = [word for word in KINDS[kind] if not word.startswith("schedule.")]
    train(tmp_path / "run", *SAME, *words, f"schedule.source={source(kind)}")
    assert theta(tmp_path / "run") == theta(source(kind))
    found = load_loss_schedule(source(kind))
    assert any(not torch.equal(a, b) for a, b in zip(*map(phi_at(found), (0, 1)), strict=True))


def test_an_export_has_the_schedule_too(source, tmp_path):
    assert tmp_path / SCHEDULE in metaloss.export_run(source(), tmp_path)
    assert (tmp_path / SCHEDULE).read_bytes() == (source() / SCHEDULE).read_bytes()


def phi_at(schedule):
    return lambda progress: list(schedule.phi(progress).values())


def test_a_constant_recording_is_a_static_run(source, tmp_path):
    phi = load_file(source() / "loss.safetensors")
    stacked = {name: torch.stack([value] * 3) for name, value in phi.items()}
    content = pack_schedule(metaloss.load_loss(source()), [0, 7, 10], 10, stacked, {})
    (tmp_path / SCHEDULE).write_bytes(content)
    more = ("steps=24", "schedule.train_on=train+validation")
    train(tmp_path / "run", "schedule=replay", f"schedule.source={tmp_path}", *more)
    train(
        tmp_path / "static",
        *("schedule=static", "loss=load", f"loss.path={source()}", "start=keep", *more),
    )
    assert theta(tmp_path / "run") == theta(tmp_path / "static")


def test_another_network_task_and_length_follow_the_same_loss(source, tmp_path):
    draw = torch.Generator().manual_seed(1)
    rows = [(torch.randn(20, 6, generator=draw), torch.arange(20) % 5) for _ in range(3)]
    run = metaloss.train(
        [
            *fast("schedule=replay", f"schedule.source={source()}", "steps=31", "eval_every=10"),
            f"output={tmp_path / 'run'}",
        ],
        task=metaloss.task_from_data(*rows, name="other"),
        model=nn.Linear(6, 5),
    )
    schedule = load_loss_schedule(source(), smoothing=0.1)
    expected = schedule.phi(30 / 31)
    assert expected.pop("offsets").shape == (3,), "the shifts of three classes are of no use here"
    found = load_file(run.folder / "loss.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (run.folder / SCHEDULE).read_bytes() == (source() / SCHEDULE).read_bytes()
    steps = [row["step"] for row in _rows(run.folder / "curves.jsonl")]
    assert steps == [0, 10, 20, 30, 31]


def _rows(path):
    from metaloss.core.storage.run_folder import read_rows

    return read_rows(path)


def words(folder, *more):
    return [*fast("log_every=2", "eval_every=4", "checkpoint_every=5", *more), f"output={folder}"]


def test_a_replay_is_resumed_without_the_run_that_it_follows(source, tmp_path):
    copy = shutil.copytree(source(), tmp_path / "copy")
    given = ("schedule=replay", f"schedule.source={copy}", "steps=15")
    metaloss.train(words(tmp_path / "whole", *given), task=blobs(), model=net())
    task = interrupting(at=8)
    with pytest.raises(KeyboardInterrupt):
        metaloss.train(words(tmp_path / "run", *given), task=task, model=net())
    shutil.rmtree(copy)
    resume_run(tmp_path / "run", task=blobs(), model=net())
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_a_loss_that_words_name_does_not_give_way(source, tmp_path):
    follow = ["schedule=replay", f"schedule.source={source()}", "steps=2", "tracker=[]"]
    metaloss.train([*follow, f"output={tmp_path / 'run'}"], task=blobs(), model=net())
    with pytest.raises(MetalossError, match="loss=mlp with schedule=replay: the loss is that"):
        metaloss.train([*follow, "loss=mlp", f"output={tmp_path / '2'}"], task=blobs(), model=net())


def test_both_passes_may_begin_with_a_loaded_loss(source, tmp_path):
    load = ("loss=load", f"loss.path={source()}", "start=keep")
    run = train(tmp_path, "schedule=replay", *load, "steps=3", "schedule.smoothing=0")
    assert run.summary.loss == "load", "so that its config.yaml does the same again"
    begun = load_loss_schedule(tmp_path).at(0)
    torch.testing.assert_close(dict(begun.named_parameters()), load_file(source() / WEIGHTS))


def test_the_end_of_a_recording_is_no_average(tmp_path):
    given, found = ("steps=3", "record_phi=1", "schedule=online"), []
    for name, more in (("plain", ()), ("average", ("meta_optimizer.ema=0.9",))):
        run = train(tmp_path / name, *given, *more)
        found.append((load_file(tmp_path / name / SCHEDULE), list(run.loss.parameters())))
    (plain, phi), (recorded, mean) = found
    torch.testing.assert_close(recorded, plain, rtol=0, atol=0)
    assert not all(torch.equal(a, b) for a, b in zip(phi, mean, strict=True))


TWICE = ("schedule=replay", "steps=12", "schedule.first.unroll=2")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return the folder of two passes in one command."""
    folder = tmp_path_factory.mktemp("both") / "run"
    metaloss.train(words(folder, *TWICE), task=blobs(), model=net())
    return folder


def test_both_passes_in_one_command_are_two_commands(both, tmp_path):
    first = metaloss.train(
        words(tmp_path / "1", "steps=12", "schedule.unroll=2"), task=blobs(), model=net()
    )
    assert_same_ending(both / "first", first.folder)
    follow = ("schedule=replay", f"schedule.source={first.folder}", "steps=12")
    second = metaloss.train(words(tmp_path / "2", *follow), task=blobs(), model=net())
    assert_same_ending(both, second.folder)


# The task loss is computed about once a step: in the first pass twelve times, after its start.
@pytest.mark.parametrize("at", [8, 40])
def test_both_passes_are_resumed_where_they_were_stopped(both, tmp_path, at):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=f"--resume {folder}$"):
        metaloss.train(words(folder, *TWICE), task=interrupting(at=at), model=net())
    assert (folder / "config.yaml").exists() == (at > 29), "each case stops another pass"
    resume_run(folder, task=blobs(), model=net())
    for one in ("first", "."):
        assert_same_ending(folder / one, both / one)


def test_many_seeds_record_and_replay_as_each_would_alone(tmp_path):
    given, unroll = ("steps=12", "record_phi=5"), "schedule.unroll=2"
    train(tmp_path / "group", *given, unroll, "seeds=2")
    for seed in (0, 1):
        train(tmp_path / f"alone{seed}", *given, unroll, f"seed={seed}")
        found, expected = (
            load_file(folder / SCHEDULE)
            for folder in (tmp_path / f"group/seed{seed}", tmp_path / f"alone{seed}")
        )
        assert found["step"].tolist() == expected["step"].tolist() == [0, 3, 5, 8, 10, 12]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    follow = ("schedule=replay", "steps=9", f"schedule.source={tmp_path / 'group'}")
    train(tmp_path / "both", *follow, "seeds=2")
    train(tmp_path / "second", *follow, "seed=1")
    torch.testing.assert_close(
        *(load_file(tmp_path / name / "model.safetensors") for name in ("both/seed1", "second")),
        rtol=1e-4,
        atol=1e-5,
    )
    train(tmp_path / "twice", "schedule=replay", *given, "schedule.first.unroll=2", "seeds=2")
    torch.testing.assert_close(
        *(load_file(tmp_path / name / SCHEDULE) for name in ("twice/seed1", "alone1")),
        rtol=1e-4,
        atol=1e-5,
    )
    with pytest.raises(MetalossError, match="it has no run of seed 2: expected one for each seed"):
        train(tmp_path / "third", *follow, "seed=2")
    assert not (tmp_path / "third").exists()


def test_nothing_is_recorded_if_it_is_switched_off_or_phi_stays(tmp_path):
    train(tmp_path / "off", "steps=4", "record_phi=0")
    train(tmp_path / "static", "steps=4", "schedule=static", "loss=gce")
    for name in ("off", "static"):
        assert not (tmp_path / name / SCHEDULE).exists()
        with pytest.raises(MetalossError, match="has no loss schedule"):
            train(tmp_path / "run", "schedule=replay", f"schedule.source={tmp_path / name}")


def test_a_large_phi_is_not_recorded():
    plan, begin = Plan(phase="train"), Progress()
    assert Recording(2, 10, Online(), numbers=LARGEST).due(plan, begin) == [0]
    assert Recording(2, 10, Online(), numbers=LARGEST + 1).due(plan, begin) == []


def test_what_does_not_fit_is_refused_before_anything_is_written(source, tmp_path):
    follow = ("schedule=replay", f"schedule.source={source()}")
    for more, given, message in (
        (("loss=gce",), {}, "loss=gce with schedule=replay: the loss is that of the recording"),
        (("loss=mlp", "loss.hidden=[7]"), {}, r"recording, mlp loss\.hidden=\[6\]: leave out"),
        ((), {"loss": metaloss.MLPLoss()}, "with a loss of your own"),
        ((), {"task": line(), "model": net(outputs=1)}, "needs link=identity"),
        (("schedule.first.unroll=2",), {}, "schedule.first with schedule.source"),
        (("schedule.source=", "record_phi=0"), {}, "record_phi=0 with schedule=replay and no"),
        (("schedule.source=",), {"loss": metaloss.MLPLoss()}, "with schedule=online first"),
        (("schedule.source=", "loss=gce"), {}, "loss=gce has no parameters to learn"),
        (("schedule.source=", "schedule.first.unroll=0"), {}, "schedule.first.unroll=0: expected"),
        # Before the first pass, which would have nothing to replay.
        (("schedule.source=", "loss.hidden=[320,320]"), {}, "parameters, which are not recorded"),
        (("schedule.source=", "schedule.jury=0.01"), {}, "no rows are left for the jury, of 24"),
        (("schedule.source=", "schedule.jury=0.5"), {}, "the jury would move φ in the first pass"),
        (("schedule.source=", *L2RW), {}, "with meta_optimizer.rule=l2rw"),
        # Rows of the jury moved φ in the source.
        (("schedule.jury=0.5",), {}, "φ in that run, which had schedule.jury=0.0: expected"),
        (("schedule.jury=0.01",), {}, "no rows are left for the jury, of 24"),
        (("schedule.smoothing=-1",), {}, "schedule.smoothing=-1.0: expected a share from 0 to 1"),
        (("record_phi=-1",), {}, "record_phi=-1: expected a whole number, at least 0"),
    ):
        with pytest.raises(MetalossError, match=message):
            train(tmp_path / "run", *follow, *more, **given)
    assert not (tmp_path / "run").exists()


def test_the_jury_of_a_source_may_be_that_of_its_replays(tmp_path):
    jury = ("schedule.jury=0.5", "steps=3")
    train(tmp_path / "first", *jury)
    follow = ("schedule=replay", f"schedule.source={tmp_path / 'first'}", *jury)
    train(tmp_path / "second", *follow)
    again = ("schedule=replay", f"schedule.source={tmp_path / 'second'}", "steps=3")
    train(tmp_path / "third", *again, "schedule.jury=0.5", "eval_every=2")
    with pytest.raises(MetalossError, match=r"which had schedule.jury=0.5: expected the same"):
        train(tmp_path / "fourth", *again, "schedule.jury=0.25")
    other = train(tmp_path / "other", *again, "schedule.jury=0.25", task=blobs(seed=1))
    assert other.summary.ended_with["weights"] == "current", "other rows moved φ"


def test_weights_of_rows_are_replayed_on_these_rows_alone(tmp_path):
    rows = ("loss=row_weights", "start=keep", "steps=3")
    train(tmp_path / "first", *rows)
    follow = ("schedule=replay", f"schedule.source={tmp_path / 'first'}", *rows)
    train(tmp_path / "second", *follow)
    with pytest.raises(MetalossError, match="by their numbers, and the 64 of this run are others"):
        train(tmp_path / "third", *follow, task=blobs(seed=1))


def test_a_first_pass_that_diverges_is_the_end_of_the_run(tmp_path):
    given = ("schedule=replay", "steps=12", "inner.lr=1e30", "guard=on")
    with pytest.raises(DivergedError, match="first: the first pass has diverged"):
        train(tmp_path, *given, "log_every=1", "eval_every=1")
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["schedule"]) == ("diverged", "replay")
    for steps in (None, 20):
        with pytest.raises(MetalossError, match="the run has diverged: begin again with --config"):
            resume_run(tmp_path, steps=steps, task=blobs(), model=net())
