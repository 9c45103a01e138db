import pytest

from metaloss.compose import compose, to_yaml
from metaloss.errors import MetalossError
from metaloss.study.launch.jobs import State, can_resume, differences, plan_jobs
from metaloss.study.spec.spec import Row, Study

COMMON = ("task=digits", "steps=200")
CE = Row(name="CE", overrides=("schedule=static", "loss=cross_entropy"))
ONLINE = Row(name="online", overrides=("schedule=online", "loss=mlp", "start.steps=300"))


def study(*rows, seeds=(0, 1)):
    return Study(rows=rows or (CE, ONLINE), seeds=seeds, common=COMMON)


def test_jobs_come_by_row_and_seed_with_their_folders(tmp_path):
    jobs = plan_jobs(study(), tmp_path)
    assert [(job.row, job.seed) for job in jobs] == [
        ("CE", 0), ("CE", 1), ("online", 0), ("online", 1),
    ]  # fmt: skip
    assert jobs[3].folder == tmp_path / "online" / "seed1"
    assert jobs[3].config["seed"] == 1
    assert jobs[3].config["schedule"]["name"] == "online"
    assert jobs[3].phases == {"start": 300, "offline": 0, "train": 200}
    assert all(job.state is State.missing for job in jobs)
    assert not list(tmp_path.iterdir()), "planning changes nothing"


def test_what_learns_costs_more(tmp_path):
    words = {
        "CE": CE.overrides,
        "online": ONLINE.overrides,
        "half": (*ONLINE.overrides, "schedule.freeze_after=0.5"),
        "offline": ("schedule=offline", "loss=mlp", "schedule.offline_steps=20"),
    }
    rows = [Row(name=name, overrides=some) for name, some in words.items()]
    costs = {job.row: job.cost for job in plan_jobs(study(*rows, seeds=(0,)), tmp_path)}
    # Steps that learn count three times, and an offline meta-step takes ten of them.
    assert costs == {"CE": 200, "online": 600, "half": 400, "offline": 3 * 10 * 20 + 200}


def test_a_finished_run_with_the_same_config_is_found(tmp_path, runs):
    for job in plan_jobs(study(), tmp_path)[:2]:
        runs.write_run(job.folder, job.overrides)
    states = [job.state for job in plan_jobs(study(), tmp_path)]
    assert states == [State.finished, State.finished, State.missing, State.missing]


def test_where_a_run_lies_and_who_watched_it_does_not_matter(tmp_path, runs):
    job = plan_jobs(study(CE, seeds=(0,)), tmp_path)[0]
    words = [w for w in job.overrides if not w.startswith("tracker")]
    runs.write_run(job.folder, [*words, "tracker=[]", "output=elsewhere", "device=cpu"])
    assert plan_jobs(study(CE, seeds=(0,)), tmp_path)[0].state is State.finished


def test_a_run_with_another_config_is_never_reused(tmp_path, runs):
    job = plan_jobs(study(CE, seeds=(0,)), tmp_path)[0]
    runs.write_run(job.folder, [*job.overrides, "inner.lr=0.5"])
    with pytest.raises(
        MetalossError, match=r"was trained with inner\.lr=0\.5; expected inner.lr=0.1"
    ):
        plan_jobs(study(CE, seeds=(0,)), tmp_path)


def test_a_run_of_another_part_says_so_first(tmp_path, runs):
    job = plan_jobs(study(CE, seeds=(0,)), tmp_path)[0]
    runs.write_run(job.folder, ["schedule=online", "loss=mlp", *COMMON, "tracker=[]", "seed=0"])
    with pytest.raises(MetalossError, match=r"loss\.name=mlp; expected .*=cross_entropy \(and \d+"):
        plan_jobs(study(CE, seeds=(0,)), tmp_path)


def test_a_run_without_a_summary_is_unfinished(tmp_path, runs):
    job = plan_jobs(study(CE, seeds=(0,)), tmp_path)[0]
    runs.write_run(job.folder, job.overrides)
    (job.folder / "summary.json").unlink()
    assert plan_jobs(study(CE, seeds=(0,)), tmp_path)[0].state is State.unfinished
    assert not can_resume(job.folder)
    (job.folder / "checkpoints").mkdir()
    (job.folder / "checkpoints" / "000000000100.checkpoint").touch()
    assert can_resume(job.folder)


def test_a_strangers_folder_is_left_alone(tmp_path):
    (tmp_path / "ce" / "seed0").mkdir(parents=True)
    (tmp_path / "ce" / "seed0" / "thesis.tex").touch()
    with pytest.raises(MetalossError, match="is not the folder of a run"):
        plan_jobs(study(CE, seeds=(0,)), tmp_path)


def test_a_wrong_word_names_its_row(tmp_path):
    wrong = Row(name="typo", overrides=("loss=mpl",))
    with pytest.raises(MetalossError, match=r"row 'typo': .*did you mean 'mlp'"):
        plan_jobs(study(CE, wrong), tmp_path)


def test_differences_see_keys_on_both_sides_and_let_auto_be_resolved():
    wanted = {"a": {"name": "x", "b": 1}, "compile": "auto", "output": "p"}
    found = {"a": {"name": "x", "c": 2}, "compile": "on", "output": "q"}
    assert differences(wanted, found) == [("a.b", 1, "nothing"), ("a.c", "nothing", 2)]
    assert differences(wanted, wanted) == []


def test_a_replay_has_the_loss_of_its_recording_and_the_cost_of_both_passes(tmp_path, runs):
    follow = Row(name="replay", overrides=("schedule=replay", "schedule.source=runs/first"))
    job = plan_jobs(study(follow, seeds=(0,)), tmp_path)[0]
    runs.write_run(job.folder, [*job.overrides, "loss.hidden=[7]"])
    assert plan_jobs(study(follow, seeds=(0,)), tmp_path)[0].state is State.finished
    both = Row(name="both", overrides=("schedule=replay", "schedule.first.period=2"))
    online = Row(name="online", overrides=("schedule=online", "schedule.period=2"))
    alone, twice = (plan_jobs(study(row), tmp_path / "2")[0].cost for row in (online, both))
    assert twice == alone + job.cost == 600


def test_a_run_in_its_first_pass_is_never_gone_on_with_by_another_row(tmp_path):
    row = Row(name="both", overrides=("schedule=replay",))
    job = plan_jobs(study(row, seeds=(0,)), tmp_path)[0]
    (job.folder / "first").mkdir(parents=True)
    (job.folder / "passes.yaml").write_text(to_yaml(compose(job.overrides)))
    assert plan_jobs(study(row, seeds=(0,)), tmp_path)[0].state is State.unfinished
    for word, said in (
        ("inner.lr=0.5", r"inner\.lr=0\.1; expected inner\.lr=0\.5"),
        ("loss=taylor", r"loss\.name=mlp; expected loss\.name=taylor"),
        ("loss.hidden=[5]", r"loss\.hidden=\[40, 40\]; expected loss\.hidden=\[5\]"),
    ):
        other = Row(name="both", overrides=("schedule=replay", word))
        with pytest.raises(MetalossError, match=f"was trained with {said}"):
            plan_jobs(study(other, seeds=(0,)), tmp_path)
