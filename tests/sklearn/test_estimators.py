"""The estimators: in scikit-learn's tools, with trusted rows, tables and weights."""

import io
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

import metaloss
from metaloss.errors import MetalossError
from metaloss.sklearn import LearnedLossClassifier, LearnedLossRegressor
from metaloss.sklearn.rows import counted, held_out
from metaloss.sklearn.suspects import suspects_in_order

QUICK = {"start.steps": 20, "model.hidden": [8]}


def classifier(**changes):
    settings = {"steps": 60, "inner_lr": 0.1, "options": QUICK, "random_state": 0, **changes}
    return LearnedLossClassifier(**settings)


def noisy(count=300, seed=0, noise=0.3):
    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(count, 3))
    truth = np.where(inputs[:, 0] + inputs[:, 1] > 0, "yes", "no")
    given = np.where(draw.random(count) < noise, "no", truth)
    return inputs, given, truth


def test_trusted_rows_are_the_meta_batches_and_do_not_train():
    inputs, given, truth = noisy()
    model = classifier(steps=200).fit(inputs, given, trusted=(inputs[:60], truth[:60]))
    new, _, right = noisy(500, seed=1)
    assert model.score(new, right) > 0.85
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.n_iter_ == 200
    # Only the trusted labels have changed.
    other = classifier(steps=200).fit(inputs, given, trusted=(inputs[:60], given[:60]))
    assert (other.predict_proba(new) != model.predict_proba(new)).any()
    assert model.history_["meta/task_loss"][1].min() > 0


def test_predictions_are_those_of_a_run_with_the_same_rows(tmp_path):
    inputs, given, truth = noisy(100)
    model = classifier().fit(inputs, given, trusted=(inputs[:20], truth[:20]))
    order = np.lexsort([given == "yes", *inputs.T[::-1]])
    mean, std = inputs[order].mean(0), inputs[order].std(0)

    def rows(some, labels):
        import torch

        some, places = some[order_of(some, labels)], labels[order_of(some, labels)]
        return torch.from_numpy(((some - mean) / std).astype("float32")), torch.from_numpy(
            (places == "yes").astype("int64")
        )

    def order_of(some, labels):
        return np.lexsort([labels == "yes", *some.T[::-1]])

    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    task = metaloss.task_from_data(rows(inputs, given), rows(inputs[:20], truth[:20]))
    words = ["steps=60", "inner.lr=0.1", "start.steps=20", "model.hidden=[8]", "tracker=[]"]
    run = metaloss.train(
        [*words, "compile=off", f"seed={seed}", f"output={tmp_path / 'run'}"], task=task
    )
    for name, value in run.model.state_dict().items():
        assert np.array_equal(value.numpy(), model.weights_[name])


def test_without_trusted_rows_a_stratified_share_is_held_out():
    rows, _ = counted(np.arange(100.0)[:, None], np.arange(100) % 4 // 3, None)
    draw = np.random.default_rng(0)
    train, trusted = held_out(rows, 0.2, draw, stratified=True)
    assert (len(train.targets), len(trusted.targets)) == (80, 20)
    assert trusted.targets.sum() == 5
    assert not {*train.inputs[:, 0]} & {*trusted.inputs[:, 0]}
    inputs, given, _ = noisy()
    model = classifier(trusted_fraction=0.3).fit(inputs, given)
    assert model.score(inputs, given) > 0.7


def test_equal_rows_are_in_one_part_and_weights_are_counts():
    inputs = np.array([[1.0], [2.0], [1.0], [3.0]])
    rows, places = counted(inputs, np.array([0, 1, 0, 1]), np.array([2.0, 1.0, 1.0, 0.0]))
    assert places.tolist() == [0, 1, 0, 2]
    assert rows.inputs[:, 0].tolist() == [1.0, 2.0]
    assert rows.counts.tolist() == [3, 1]
    parts, _ = counted(np.arange(3.0)[:, None], np.zeros(3, dtype=int), np.array([0.5, 1.0, 0.25]))
    assert parts.counts.tolist() == [2, 4, 1]
    with pytest.raises(MetalossError, match="every weight is 0"):
        counted(inputs, np.array([0, 1, 0, 1]), np.zeros(4))


def test_suspects_are_in_the_order_of_the_rows():
    inputs, given, truth = noisy(200)
    # Two equal rows have the same score, and a row that was not drawn has none.
    inputs[7], given[7], truth[7] = inputs[3], given[3], truth[3]
    names = [f"row {number}" for number in range(200)]
    frame = pd.DataFrame(inputs, columns=["a", "b", "c"], index=names)
    weights = np.ones(200)
    weights[5] = 0
    model = classifier(steps=200).fit(
        frame, given, sample_weight=weights, trusted=(frame[:60], truth[:60])
    )
    found = model.suspects_
    assert found.index.tolist() == names
    assert found["score"].iloc[7] == found["score"].iloc[3]
    assert np.flatnonzero(found["score"].isna()).tolist() == [5]
    assert pd.isna(found["suggested"].iloc[5])
    wrong = (given != truth) & (weights > 0)
    scores = found["score"].to_numpy()
    pairs = scores[wrong][:, None] > scores[(given == truth) & (weights > 0)]
    assert pairs.mean() > 0.85  # the AUROC
    right = (found["suggested"] == truth)[weights > 0]
    assert right.mean() > 0.85
    # Rows that judge the loss are not suspects.
    held = classifier().fit(inputs, given).suspects_
    assert 25 <= held["score"].isna().sum() <= 35
    assert held.index.tolist() == list(range(200))


def test_suspects_of_values_and_runs_without_a_ledger():
    inputs = np.arange(120.0)[:, None] / 60 - 1
    values = 100 + 5 * inputs[:, 0]
    wrong = values.copy()
    wrong[::10] += 20
    model = LearnedLossRegressor(steps=150, inner_lr=0.05, options=QUICK, random_state=0)
    found = model.fit(inputs, wrong, trusted=(inputs[1::10], values[1::10])).suspects_
    assert found.sort_values("score").index[-12:].sort_values().tolist() == [*range(0, 120, 10)]
    assert np.abs(found["suggested"] - values).mean() < 5
    with pytest.raises(AttributeError, match="not fitted"):
        clone(model).suspects_  # noqa: B018
    for option in ({"ledger": False}, {"schedule.train_on": "validation"}):
        model.set_params(options={**QUICK, **option}, steps=2).fit(inputs, wrong)
        with pytest.raises(AttributeError, match="kept no ledger"):
            model.suspects_  # noqa: B018


def test_a_ledger_that_cannot_be_read_is_not_a_missing_one(tmp_path):
    def suspects(*, task):
        raise MetalossError("ledger.safetensors is damaged")

    run = SimpleNamespace(folder=tmp_path, suspects=suspects)
    assert suspects_in_order(run, None, np.zeros(1), np.zeros(1)) is None
    (tmp_path / "ledger.safetensors").write_bytes(b"")
    (tmp_path / "config.yaml").write_text("{schedule: {name: online, train_on: train}}")
    with pytest.raises(MetalossError, match="is damaged"):
        suspects_in_order(run, None, np.zeros(1), np.zeros(1))


def test_the_order_of_the_rows_does_not_matter():
    inputs, given, _ = noisy(80)
    order = np.random.default_rng(1).permutation(80)
    one = classifier().fit(inputs, given).predict_proba(inputs)
    other = classifier().fit(inputs[order], given[order]).predict_proba(inputs)
    assert np.array_equal(one, other)
    assert one.std() > 0.01


def test_a_table_with_texts_dates_and_gaps():
    inputs, _, given = noisy(200)
    frame = pd.DataFrame(inputs, columns=["a", "b", "c"])
    frame.loc[::7, "c"] = np.nan
    frame["town"] = np.where(inputs[:, 2] > 0, "Rome", "Oslo")
    frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(200) % 60, "D")
    model = classifier(steps=150).fit(frame, given, trusted=(frame[:50], given[:50]))
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "town", "day"]
    assert model.score(frame, given) > 0.75
    assert model.predict(frame.iloc[:3]).tolist() == model.predict(frame).tolist()[:3]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.drop(columns="town"))


def test_numbers_in_a_frame_and_sparse_rows_are_arrays():
    inputs, given, _ = noisy(120)
    inputs[inputs < 0] = 0
    expected = classifier().fit(inputs, given).predict_proba(inputs)
    frame = pd.DataFrame(inputs, columns=["a", "b", "c"])
    assert np.array_equal(classifier().fit(frame, given).predict_proba(frame), expected)
    for rows in (sparse.csr_matrix(inputs), sparse.csc_array(inputs)):
        assert np.array_equal(classifier().fit(rows, given).predict_proba(rows), expected)


def test_searches_pipelines_and_clones():
    inputs, given, _ = noisy(150)
    found = GridSearchCV(classifier(), {"inner_lr": [1e-5, 0.1]}, cv=2).fit(inputs, given)
    assert found.best_params_ == {"inner_lr": 0.1}
    pipe = make_pipeline(MinMaxScaler(), classifier())
    assert cross_val_score(pipe, inputs, given, cv=2).min() > 0.6
    assert clone(pipe)[-1].get_params()["options"] == QUICK


def test_a_pickled_model_predicts_the_same_and_holds_arrays_only():
    inputs, given, _ = noisy(100)
    model = classifier().fit(inputs, given)
    modules = set()

    class Watched(pickle.Unpickler):
        def find_class(self, module, name):
            modules.add(module.partition(".")[0])
            return super().find_class(module, name)

    again = Watched(io.BytesIO(pickle.dumps(model))).load()
    assert np.array_equal(again.predict_proba(inputs), model.predict_proba(inputs))
    assert modules == {"metaloss", "numpy"}


def test_a_regressor_predicts_in_the_units_of_its_target():
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(200, 2))
    values = 1000 + 50 * inputs[:, 0]
    wrong = np.where(draw.random(200) < 0.2, values + 500, values)
    model = LearnedLossRegressor(steps=200, inner_lr=0.05, options=QUICK, random_state=0)
    model.fit(inputs, wrong, trusted=(inputs[:50], values[:50]))
    assert np.abs(model.predict(inputs) - values).mean() < 50
    assert np.isfinite(model.loss_curves_["grid"]).all()


def test_the_learned_loss_is_kept_over_time():
    inputs, given, _ = noisy(100)
    curves = classifier(options={**QUICK, "eval_every": 20}).fit(inputs, given).loss_curves_
    assert curves["step"].tolist() == [20, 40, 60, 80]
    labels = set(curves) - {"step", "grid"}
    assert len(labels) >= 2
    for label in labels:
        assert curves[label].shape == (4, len(curves["grid"]))
        assert (curves[label][0] != curves[label][-1]).any()


def test_a_preset_chooses_what_no_argument_names():
    inputs, given, _ = noisy(40)
    few = {"preset": "ml3", "schedule.offline_steps": 2, "loss.hidden": [4], "start": "keep"}
    found = classifier(steps=2, options=few).fit(inputs, given).summary_
    assert found["schedule"] == "offline"


def test_what_is_wrong_is_said_in_one_line():
    inputs, given, _ = noisy(40)
    with pytest.raises(MetalossError, match="options: output, steps cannot be set here"):
        classifier(options={"steps": 3, "output": "x"}).fit(inputs, given)
    for changes, message in (
        ({"options": {"task.label_noise": 0.4}}, "options: task.label_noise cannot be set here"),
        ({"options": {"loss": "mlp"}, "loss": "gce"}, "options: loss is the argument loss"),
        ({"options": {"inner": {"lr": 0.5}}}, "options: inner.lr is the argument inner_lr"),
        ({"options": {"model": nn.Linear(2, 2)}}, "options: model is the argument model"),
        ({"model": nn.Linear(2, 2)}, "model is of type Linear: expected a name, such as 'mlp'; "),
        ({"options": ["model.hidden=[4]"]}, "expected a dictionary of keys and values"),
        ({"options": {"loss": {"hidden": [4]}}, "loss": "gce"}, "option 'loss.hidden' of loss=gce"),
    ):
        with pytest.raises(MetalossError, match=message):
            classifier(**changes).fit(inputs, given)
    with pytest.raises(MetalossError, match=r"^the first pass has diverged: no loss to replay$"):
        classifier(schedule="replay", inner_lr=1e30, steps=5).fit(inputs, given)
    with pytest.raises(MetalossError, match="unknown model 'mpl': did you mean 'mlp'"):
        classifier(model="mpl").fit(inputs, given)
    with pytest.raises(MetalossError, match="y has one class"):
        classifier().fit(inputs, np.zeros(40))
    with pytest.raises(MetalossError, match="trusted_fraction=1"):
        classifier(trusted_fraction=1).fit(inputs, given)
    with pytest.raises(ValueError, match="features"):
        classifier().fit(inputs, given, trusted=(inputs[:, :2], given))


def test_the_package_has_the_estimators():
    assert metaloss.sklearn.LearnedLossClassifier is LearnedLossClassifier
    assert "sklearn" in dir(metaloss)
