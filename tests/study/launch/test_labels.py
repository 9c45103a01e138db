"""How runs that are made together are named in Weights & Biases."""

from metaloss.compose import compose
from metaloss.study.launch.jobs import plan_row
from metaloss.study.launch.labels import labelled, labels_for
from metaloss.study.spec.spec import Row, Study

LABELS = {"group": "g", "job_type": "r", "notes": "n"}


def test_labels_fill_what_the_user_left_open():
    assert labels_for(compose(["tracker=[console]"]), **LABELS) == {}
    config = compose(["tracker=[wandb]", "tracker.wandb.group=mine"])
    assert labels_for(config, **LABELS) == {"job_type": "r", "notes": "n"}
    options = labelled(config, **LABELS).tracker["wandb"]
    assert (options.group, options.job_type, options.notes) == ("mine", "r", "n")
    assert config.tracker["wandb"].job_type is None
    assert labelled(compose(["tracker=[]"]), **LABELS) == compose(["tracker=[]"])


def test_the_runs_of_a_row_have_its_name_and_its_study_s(tmp_path):
    row = Row(name="a b", overrides=("loss=mlp",))
    study = Study(rows=(row,), seeds=(0, 1), common=("tracker=[wandb]",))
    jobs = plan_row(study, row, tmp_path / "study" / "a-b")
    for job in jobs:
        options = compose(job.overrides).tracker["wandb"]
        assert (options.group, options.job_type, options.notes) == ("study", "a b", "loss=mlp")
        assert job.config["tracker"]["wandb"]["group"] is None
