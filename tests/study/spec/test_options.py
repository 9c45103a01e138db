"""The words of ``metaloss compare`` about who trains."""

import pytest

from metaloss.core.search.ray_tasks import Asked
from metaloss.errors import MetalossError
from metaloss.study import compare
from metaloss.study.compare import Request, run_request
from metaloss.study.spec.options import Options, split_launcher


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], None),
        (["hydra/launcher=ray"], Asked()),
        (["hydra/launcher=ray", "hydra.launcher.address=10.0.0.1:6379"],
         Asked(address="10.0.0.1:6379")),
        (["hydra.launcher.num_gpus=0.5", "hydra/launcher=ray"], Asked(num_gpus=0.5)),
    ],
)  # fmt: skip
def test_words_for_ray_are_taken_out(words, asked):
    assert split_launcher(["task=digits", *words, "steps=5"]) == (asked, ("task=digits", "steps=5"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra/launcher=joblib"], "'hydra/launcher=joblib': a comparison trains in processes of"),
        (["hydra/sweeper=basic"], "'hydra/sweeper=basic': a comparison trains in processes of"),
        (["hydra/launcher=ray,basic"], "'hydra/launcher=ray,basic': expected one value"),
        (["hydra.launcher.address=auto"], "'hydra.launcher.address=auto' is for Ray: add hydra/la"),
        (["hydra.run.dir=x"], "'hydra.run.dir=x': unknown setting of Hydra "),
        (["hydra/launcher=ray", "hydra.launcher.num_gpus=few"],
         "hydra.launcher.num_gpus=few: expected a number"),
        (["hydra/launcher=ray", "hydra.launcher.num_gpus=-1"],
         "hydra.launcher.num_gpus=-1.0: expected a number ≥ 0"),
        (["hydra/launcher=ray", "hydra.launcher.num_cpus=2"],
         "hydra.launcher.num_cpus: in a comparison --threads says it"),
        (["hydra/launcher=ray", "hydra.launcher.adress=auto"],
         "unknown option 'hydra.launcher.adress': (allowed: hydra.launcher.address, hydra.laun"),
    ],
)  # fmt: skip
def test_other_words_of_hydras_are_refused(words, message):
    with pytest.raises(MetalossError) as caught:
        split_launcher(words)
    assert str(caught.value).startswith(message)


def test_a_row_cannot_choose_who_trains(tmp_path):
    with pytest.raises(MetalossError, match="row 'a': 'hydra/launcher=ray': Hydra's settings"):
        run_request(Request(out=tmp_path, rows=("a: hydra/launcher=ray",)))


def test_a_study_on_ray_is_the_same_study(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        compare, "compare", lambda study, out, **given: asked.append((study, given))
    )
    words = ("task=digits", "hydra/launcher=ray")
    run_request(Request(out=tmp_path, words=words, rows=("a: loss=mlp",)))
    [(study, given)] = asked
    assert study.common == ("task=digits",)
    assert given["options"].ray == Asked()


def test_threads_are_cpus_of_ray(monkeypatch):
    asked = []
    monkeypatch.setattr(compare, "RayTrainer", lambda *given, **more: asked.append((given, more)))
    compare._trainer(Options(threads=3, ray=Asked(address="auto"), arguments=("--plugin", "x.py")))
    assert asked == [
        ((Asked(address="auto", num_cpus=3),), {"arguments": ("--plugin", "x.py")}),
    ]
