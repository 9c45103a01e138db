"""California housing and Communities and Crime, from files and from scikit-learn's cache."""

import numpy as np
import pytest
import torch
from sklearn.utils import Bunch

from metaloss.data.tables import california, communities
from metaloss.data.tables.california import CaliforniaHousing
from metaloss.data.tables.communities import CommunitiesCrime
from metaloss.errors import MetalossError
from metaloss.testing import check_part

FEATURES = ["MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Lat", "Long"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return scikit-learn's data home, empty."""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def houses(count=90):
    draw = np.random.default_rng(0)
    return draw.normal(size=(count, 8)) * 3 + 10, draw.gamma(2.0, size=count)


def write_houses(path, target, *, gaps=False):
    inputs, values = houses()
    lines = [",".join([*FEATURES, "ocean_proximity", target])]
    for number, (row, value) in enumerate(zip(inputs, values, strict=True)):
        cells = [f"{cell:.6f}" for cell in row]
        if gaps and number % 9 == 4:
            cells[3] = ""
        lines.append(",".join([*cells, ("INLAND", "NEAR BAY")[number % 2], f"{value:.6f}"]))
    path.write_text("\n".join(lines))
    return str(path)


def communities_rows(count=60):
    """Return rows as in the published file: five keys, 122 measurements, the target."""
    draw = np.random.default_rng(1)
    measured = draw.uniform(size=(count, 123)).round(2)
    rows = []
    for number, values in enumerate(measured):
        cells = [f"{value:g}" for value in values]
        if number % 7 == 2:
            cells[100] = "?"
        rows.append([str(number % 5), "?", "?", f"Town{number}city", str(number % 10), *cells])
    return rows, measured


@pytest.mark.parametrize("target", ["MedHouseVal", "median_house_value"])
def test_houses_from_a_file_keep_the_contract(tmp_path, target):
    path = write_houses(tmp_path / "houses.csv", target, gaps=True)
    results = check_part("task", "california_housing", CaliforniaHousing(path=path))
    assert [f"{r.name}: {r.message}" for r in results if not r.passed] == []
    task = CaliforniaHousing(path=path).build(0)
    # Eight measurements, where one is missing, two kinds of places.
    assert task.input_shape == (11,)
    assert task.train.targets.var(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_houses_come_from_scikit_learns_cache(cache):
    import joblib

    inputs, values = houses()
    cache.mkdir()
    # Its own form: the target first, then columns that its reader turns into the eight features.
    columns = np.column_stack([values * 1e5, inputs[:, 0], inputs[:, 1], *np.full((4, 90), 7.0)])
    columns[:, 3:7] = np.random.default_rng(2).integers(2, 90, (90, 4))
    raw = np.column_stack([columns, inputs[:, 6:]])
    joblib.dump(raw, cache / "cal_housing_py3.pkz", compress=6)
    source = CaliforniaHousing()
    task, picked = source.build(0), source.rows(0)
    assert task.input_shape == (8,)
    expected = values[picked.test]
    train = values[picked.train]
    np.testing.assert_allclose(
        task.test.targets[:, 0], (expected - train.mean()) / train.std(), atol=1e-4
    )


@pytest.mark.parametrize("header", [False, True])
def test_communities_from_a_file_keep_the_contract(tmp_path, header):
    rows, measured = communities_rows()
    names = ["state", "county", "community", "communityname", "fold"]
    names += [f"m{number}" for number in range(122)] + ["ViolentCrimesPerPop"]
    path = tmp_path / "communities.data"
    path.write_text("\n".join(",".join(row) for row in ([names] if header else []) + rows))
    source = CommunitiesCrime(path=str(path))
    results = check_part("task", "communities_crime", source)
    assert [f"{r.name}: {r.message}" for r in results if not r.passed] == []
    task, picked = source.build(0), source.rows(0)
    # 122 measurements and where one of them is missing; no name, place or fold.
    assert task.input_shape == (123,)
    values, train = measured[picked.test, 122], measured[picked.train, 122]
    np.testing.assert_allclose(
        task.test.targets[:, 0], (values - train.mean()) / train.std(), atol=1e-5
    )


def test_communities_come_from_openml_through_scikit_learn(monkeypatch):
    _, measured = communities_rows()
    asked = []

    def fetched(name, **options):
        asked.append((name, options))
        features = [*(f"m{number}" for number in range(120)), "fold", "state"]
        return Bunch(data=measured[:, :122], target=measured[:, 122], feature_names=features)

    monkeypatch.setattr(communities, "fetch_openml", fetched)
    task = CommunitiesCrime(download=True).build(0)
    assert task.input_shape == (120,)
    assert asked == [("us_crime", {"version": 1, "as_frame": False, "parser": "liac-arff"})]
    assert torch.isfinite(task.train.inputs).all()


@pytest.mark.parametrize("source", [CaliforniaHousing, CommunitiesCrime])
def test_a_table_that_is_nowhere_says_what_to_do(cache, source):
    with pytest.raises(MetalossError) as error:
        source().build(0)
    text = str(error.value)
    assert text.startswith(f"task={source.title}: ")
    assert "task.path=" in text
    assert "FILE.csv" in text
    assert source.targets[0] in text
    assert "task.download=true" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("source", "module", "function"),
    [
        (CaliforniaHousing, california, "fetch_california_housing"),
        (CommunitiesCrime, communities, "fetch_openml"),
    ],
)
def test_a_download_without_a_network_says_so_in_one_line(monkeypatch, source, module, function):
    def no_network(*_, **__):
        raise OSError("no route to host\nat all")

    monkeypatch.setattr(module, function, no_network)
    with pytest.raises(MetalossError) as error:
        source(download=True).build(0)
    assert str(error.value).startswith(
        f"task={source.title}, task.download=true: no route to host; without a network set "
        "task.path="
    )
    assert ("communities.data" in str(error.value)) == (source is CommunitiesCrime)
    assert "\n" not in str(error.value)


def test_a_file_without_the_target_names_the_nearest_column(tmp_path):
    path = write_houses(tmp_path / "houses.csv", "MedHouseValue")
    with pytest.raises(MetalossError, match="'MedHouseVal': did you mean 'MedHouseValue'"):
        CaliforniaHousing(path=path).build(0)
