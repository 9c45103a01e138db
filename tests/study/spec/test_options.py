"""The words of ``metaloss compare`` about who trains."""

from types import SimpleNamespace

import pytest

from metaloss.errors import MetalossError
from metaloss.study import compare
from metaloss.study.compare import Request, run_request
from metaloss.study.spec.options import Options, split_launcher


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["hydra/launcher=near"], {}),
        (["hydra/launcher=near", "hydra.launcher.place=10.0.0.1:6379"],
         {"place": "10.0.0.1:6379"}),
        (["hydra.launcher.cpus=0.5", "hydra/launcher=near"], {"cpus": 0.5}),
    ],
)  # fmt: skip
def test_words_for_an_executor_are_taken_out(near, words, asked):
    found = split_launcher(["task=digits", *words, "steps=5"])
    assert found == (near(**asked), ("task=digits", "steps=5"))


def test_without_such_words_there_is_no_executor():
    assert split_launcher(["task=digits"]) == (None, ("task=digits",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra/launcher=joblib"], "'hydra/launcher=joblib': a comparison trains in processes of"),
        (["hydra/sweeper=basic"], "'hydra/sweeper=basic': a comparison trains in processes of"),
        (["hydra/launcher=near,basic"], "'hydra/launcher=near,basic': expected one value"),
        (["hydra.launcher.place=x"], "'hydra.launcher.place=x' is for an executor: add hydra/laun"),
        (["hydra.run.dir=x"], "'hydra.run.dir=x': unknown setting of Hydra "),
        (["hydra/launcher=ray"], "hydra/launcher=ray needs the plugin metaloss-ray: pip install "),
        (["hydra/launcher=near", "hydra.launcher.cpus=few"],
         "hydra.launcher.cpus=few: expected a number"),
        (["hydra/launcher=near", "hydra.launcher.cpus=-1"],
         "hydra.launcher.cpus=-1.0: expected a positive number"),
        (["hydra/launcher=near", "hydra.launcher.plaec=x"],
         "unknown option 'hydra.launcher.plaec': did you mean 'hydra.launcher.place'? (allowed: "),
    ],
)  # fmt: skip
def test_other_words_of_hydras_are_refused(near, words, message):
    with pytest.raises(MetalossError) as caught:
        split_launcher(words)
    assert str(caught.value).startswith(message)


def test_a_row_cannot_choose_who_trains(tmp_path):
    with pytest.raises(MetalossError, match="row 'a': 'hydra/launcher=ray': Hydra's settings"):
        run_request(Request(out=tmp_path, rows=("a: hydra/launcher=ray",)))


def test_a_study_on_an_executor_is_the_same_study(near, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        compare, "compare", lambda study, out, **given: asked.append((study, given))
    )
    words = ("task=digits", "hydra/launcher=near")
    run_request(Request(out=tmp_path, words=words, rows=("a: loss=mlp",)))
    [(study, given)] = asked
    assert study.common == ("task=digits",)
    assert given["options"].executor == near()


def test_each_run_has_a_process_with_its_threads(near):
    compare._trainer(Options(threads=3, executor=near(place="there")))
    [opened] = near.opened
    assert (opened.options.place, opened.threads, opened.keep) == ("there", 3, False)


def test_as_many_runs_are_begun_as_there_is_room_for_unless_it_is_said(near, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(compare, "train_missing", lambda *_, workers, **__: asked.append(workers))
    for jobs in (None, 5):
        with pytest.raises(MetalossError):  # nothing was trained
            run_request(
                Request(
                    out=tmp_path,
                    words=("hydra/launcher=near",),
                    rows=("a: loss=mlp",),
                    options=Options(jobs=jobs),
                )
            )
    assert asked == [3, 5]


def test_runs_whose_search_waits_for_an_executor_are_refused_beside_one():
    job = SimpleNamespace(row="gp", config={"meta_optimizer": {"name": "gp", "workers": "ray"}})
    with pytest.raises(MetalossError, match=r"row 'gp': .*workers=ray beside hydra/launcher: the "):
        compare._refuse_searches([job])
    local = {"meta_optimizer": {"name": "gp", "workers": "2"}}
    compare._refuse_searches([SimpleNamespace(row="gp", config=local)])
    compare._refuse_searches([SimpleNamespace(row="a", config={"meta_optimizer": {}})])
