"""A run's folder predicts new rows: by the numbers that the run itself had, to the last bit."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import metaloss
from metaloss.compose import compose, read_file
from metaloss.core.runs.load import load_run, predict_file
from metaloss.core.training.evaluate import outputs_of
from metaloss.data.csv_task import CSV
from metaloss.data.files import DataWarning
from metaloss.data.pipeline import PIPELINE, load_pipeline, pipeline_from_dict
from metaloss.data.tables.date_parts import part_names
from metaloss.errors import MetalossError
from metaloss.inner.model.functional import FunctionalModel
from metaloss.types import InnerState

WORDS = ["schedule=static", "steps=30", "tracker=[]", "compile=off", "model.hidden=[8]"]


def people(count, seed):
    draw = np.random.default_rng(seed)
    age = np.where(draw.random(count) < 0.1, np.nan, draw.integers(18, 80, count))
    town = draw.choice(["Rome", "Oslo", "Bern", "NA"], count)
    day = pd.to_datetime("2024-01-01") + pd.to_timedelta(draw.integers(0, 300, count), "D")
    income = (
        20 + 0.5 * draw.integers(18, 80, count) + 10 * (town == "Oslo") + draw.normal(size=count)
    )
    kind = np.where(income > 52, "rich", np.where(income > 40, "well off", "poor"))
    return pd.DataFrame({"age": age, "town": town, "day": day, "income": income, "kind": kind})


@pytest.fixture(scope="module", params=["kind", "income"])
def trained(request, tmp_path_factory):
    """Return a run on three files, moved to another place, and the options of its task."""
    folder = tmp_path_factory.mktemp("run")
    target = request.param
    paths = {}
    for seed, name in enumerate(("path", "trusted", "test")):
        paths[name] = str(folder / f"{name}.csv")
        people(150, seed).to_csv(paths[name], index=False)
    drop = {"kind": "income", "income": "kind"}[target]
    source = CSV(**paths, target=target, drop=[drop])
    words = [f"task.{name}={path}" for name, path in paths.items()]
    loss = {"kind": "cross_entropy", "income": "mse"}[target]
    words += ["task=csv", f"task.target={target}", f"task.drop=[{drop}]", f"loss={loss}"]
    run = metaloss.train([*words, *WORDS, f"output={folder / 'run'}"])
    shutil.move(folder / "run", folder / "moved")
    return load_run(folder / "moved"), source, run


def own_outputs(run, inputs):
    model = FunctionalModel(run.model)
    return outputs_of(model, InnerState(*model.state(), None), inputs)


def test_a_file_gives_the_run_s_own_numbers_to_the_last_bit(trained, tmp_path):
    again, source, run = trained
    task = source.build(0)
    outputs = own_outputs(run, task.test.inputs)
    assert outputs.std() > 0.01
    name = f"test/{task.metric_name}"
    assert task.metric(outputs, task.test.targets).item() == run.summary.metrics[name]
    table = predict_file(again, source.test, tmp_path / "out.csv")
    assert table["line"].tolist() == [*range(2, 152)]
    read = pd.read_csv(tmp_path / "out.csv")
    if source.target == "income":
        train = pd.read_csv(source.path)["income"].to_numpy()
        assert np.corrcoef(read["value"], pd.read_csv(source.test)["income"])[0, 1] > 0.3
        expected = outputs[:, 0].double().numpy() * train.std() + train.mean()
        assert (read["value"] == expected).all()
        return
    shares = outputs.double().softmax(1).numpy()
    assert (read[["p(poor)", "p(rich)", "p(well off)"]].to_numpy() == shares).all()
    names = np.array(["poor", "rich", "well off"])
    assert (read["class"] == names[outputs.argmax(1)]).all()


def test_rows_in_memory_are_those_of_the_file(trained):
    again, source, run = trained
    expected = again.outputs(pd.read_csv(source.test, keep_default_na=False))
    frame = people(150, 2)
    assert torch.equal(again.outputs(frame), expected)
    assert torch.equal(again.outputs(frame[[*reversed(frame.columns)]]), expected)
    assert torch.equal(own_outputs(run, source.build(0).test.inputs), expected)
    assert len(again.predict(frame.iloc[:3])) == 3


def test_what_training_did_not_see_is_handled_as_there_and_counted(trained):
    again, _, _ = trained
    frame = people(40, 3)
    known = again.outputs(frame)
    frame.loc[3, "town"] = "Riga"
    frame.loc[4, "age"] = None
    frame.loc[5, "day"] = pd.NaT
    with pytest.warns(DataWarning) as said:
        changed = again.outputs(frame)
    texts = sorted(str(one.message) for one in said)
    # Ages were missing in training too, and an input says so: that needs no warning.
    assert texts == [
        "rows: column 'day': 1 of 40 cells hold no number: the training median is taken",
        "rows: column 'town': 1 of 40 cells hold a text without an input, such as 'Riga'",
    ]
    assert (changed[3:6] != known[3:6]).any()
    assert torch.equal(changed[6:], known[6:])


def test_what_cannot_be_predicted_is_refused_in_one_line(trained, tmp_path):
    again, _, _ = trained
    with pytest.raises(MetalossError, match=r"^rows: no column town; expected the columns"):
        again.predict(people(4, 0).drop(columns="town"))
    with pytest.raises(MetalossError, match=r"^rows: no rows; expected one or more$"):
        again.predict(people(4, 0).iloc[:0])
    (tmp_path / "new.csv").write_text("age,day\n3,2024-01-01\n")
    message = rf"^{tmp_path}/new.csv: no column town; expected the columns that the run learned"
    with pytest.raises(MetalossError, match=message):
        predict_file(again, tmp_path / "new.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_the_pipeline_is_plain_data(trained):
    again, source, _ = trained
    task = source.build(0)
    content = json.loads((again.folder / PIPELINE).read_text())
    assert content == json.loads(json.dumps(task.pipeline.to_dict()))
    frame = people(99, 7)
    one, two = task.pipeline.encode(frame), pipeline_from_dict(content).encode(frame)
    assert one.std() > 0.1
    assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["digits", "diabetes", "text"])
def test_tasks_of_arrays_encode_as_they_were_encoded(name, tmp_path):
    options = {"digits": [], "diabetes": ["loss=mse"]}
    options["text"] = ["task.length=8", "task.path=book.txt", "model=gpt"]
    options["text"] += ["model.width=8", "model.layers=1", "model.heads=1"]
    (tmp_path / "book.txt").write_text("to be or not to be, that is the question. " * 20)
    words = [word.replace("book.txt", str(tmp_path / "book.txt")) for word in options[name]]
    loss = [] if name == "diabetes" else ["loss=cross_entropy"]
    shape = [] if name == "text" else ["model.hidden=[8]"]
    run = metaloss.train(
        [f"task={name}", *words, *loss, *shape, *WORDS[:-1], f"output={tmp_path / 'run'}"]
    )
    again = load_run(run.folder)
    task_config = compose([], config_file=run.folder / "config.yaml")
    source = task_config.task.options
    table, task = source.table(), source.build(0)
    rows = table.picked(source.rows(0).test)
    assert torch.equal(task.pipeline.encode(rows), task.test.inputs)
    outputs = again.outputs(rows)
    assert torch.equal(outputs, own_outputs(run, task.test.inputs))
    number = run.summary.metrics[f"test/{task.metric_name}"]
    assert task.metric(outputs, task.test.targets).item() == number
    if name == "text":
        with pytest.raises(MetalossError, match=r"^outputs of shape \(\d+, \d+, 8\): a"):
            again.predict(rows)
    elif name == "diabetes":
        assert again.predict(rows)["value"].mean() == pytest.approx(table.targets.mean(), rel=0.2)
    else:
        assert [*again.predict(rows)] == ["class", *(f"p({number})" for number in range(10))]
    with pytest.raises(MetalossError, match="the run's task reads no new rows from files"):
        predict_file(again, tmp_path / "new.csv", tmp_path / "out.csv")


def test_rows_and_a_model_of_one_s_own(tmp_path):
    inputs = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    task = metaloss.task_from_data((inputs, (inputs[:, 0] > 0).long()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    words = ["schedule=static", "loss=cross_entropy", *WORDS[1:4], f"output={tmp_path / 'run'}"]
    run = metaloss.train(words, task=task, model=model)
    again = load_run(run.folder, model=model)
    assert torch.equal(again.outputs(task.test.inputs), own_outputs(run, task.test.inputs))
    assert set(again.predict(inputs.numpy())["class"]) == {"0", "1"}
    with pytest.raises(MetalossError, match=r"metaloss.load_run\(folder, model=...\)$"):
        load_run(run.folder)
    with pytest.raises(MetalossError, match="does not fit the model"):
        load_run(run.folder, model=nn.Linear(3, 2))
    with pytest.raises(MetalossError, match=r"model is a str: expected a torch\.nn\.Module"):
        load_run(run.folder, model="mlp")
    with pytest.raises(MetalossError, match=r"inputs of shape \(60, 2\); expected \(B, 3\)"):
        again.predict(inputs[:, :2])
    bad = inputs.clone()
    bad[7, 1] = float("inf")
    with pytest.raises(MetalossError, match="row 8 has numbers that are not finite"):
        again.predict(bad)


def edited(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def test_folders_that_do_not_serve_are_refused_in_one_line(trained, tmp_path):
    folder = tmp_path / "run"

    def refused(**options):
        with pytest.raises(MetalossError) as error:
            load_run(folder, **options)
        assert "\n" not in str(error.value)
        return str(error.value).replace(str(folder), "RUN")

    def fresh():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(trained[0].folder, folder)

    folder.mkdir()
    assert refused().startswith("RUN is not the folder of a run")
    fresh()
    edited(folder, "summary.json", lambda content: content.update(status="diverged"))
    assert "the run has diverged" in refused()
    assert load_run(folder, diverged=True).summary.status == "diverged"
    edited(folder, "summary.json", lambda content: content.update(rows=["train"]))
    assert refused() == "RUN/summary.json is damaged (rows has no names)"
    (folder / "summary.json").unlink()
    assert refused() == "RUN: the run is not finished (no summary.json)"
    fresh()
    edited(folder, PIPELINE, lambda content: content.update(format=9))
    assert refused() == f"RUN/{PIPELINE} has format 9, of a newer metaloss; this one reads up to 1"
    (folder / PIPELINE).write_text('{"format": 1}')
    assert refused() == f"RUN/{PIPELINE} is damaged: 'target'"
    (folder / PIPELINE).unlink()
    assert refused() == f"RUN: no {PIPELINE}; expected the folder of a finished run"
    fresh()
    (folder / "model.safetensors").write_bytes(b"\x08\x00")
    assert refused().startswith("RUN/model.safetensors is damaged: ")
    (folder / "model.safetensors").unlink()
    assert refused() == "RUN: no model.safetensors; expected a finished run"
    fresh()  # of a network that fills the memory, only the shapes are made
    config = read_file(folder / "config.yaml")
    config["model"]["hidden"] = [10**7, 10**7]
    (folder / "config.yaml").write_text(json.dumps(config))
    assert "RUN/model.safetensors does not fit the model" in refused()


def test_a_pipeline_with_anything_left_out_is_refused(trained, tmp_path):
    content = json.loads((trained[0].folder / PIPELINE).read_text())

    def without(value, path=()):
        if isinstance(value, dict):
            for key in value:
                yield (*path, key)
                yield from without(value[key], (*path, key))

    optional = {"median", "gaps", "texts", "decimal", "age", "town", "day", "labels"}
    optional |= {*part_names("day")}
    refused, kept = [], []
    for path in without(content):
        broken = json.loads(json.dumps(content))
        inner = broken
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        (tmp_path / PIPELINE).write_text(json.dumps(broken))
        try:
            load_pipeline(tmp_path)
        except MetalossError as error:
            refused.append(str(error))
        else:
            kept.append(path[-1])
    assert all("is damaged" in message for message in refused)
    assert len(refused) > 10
    # What may be left out: a column that gives other inputs, or options with a default.
    assert set(kept) <= {*optional, *content["inputs"]["form"]}
