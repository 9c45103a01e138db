"""Pictures in folders, a subfolder for each class."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import metaloss
from metaloss.core.runs.load import load_run, predict_file
from metaloss.data.files import DataWarning
from metaloss.data.images.folders import ImageFolders
from metaloss.data.pipeline import load_pipeline
from metaloss.errors import MetalossError
from metaloss.testing import check_part

SIZE = 16


def write(folder, count, seed, classes=("cat", "dog"), mode="RGB", side=SIZE):
    """Write pictures whose class is how bright they are; return them by class."""
    draw = np.random.default_rng(seed)
    made = {}
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        shape = (count, side, side, 3) if mode == "RGB" else (count, side, side)
        made[name] = draw.integers(60 * place, 60 * place + 120, shape).astype(np.uint8)
        for number, pixels in enumerate(made[name]):
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")
    return made


@pytest.fixture
def folders(tmp_path):
    """Return the options that name three folders, and what is in the first."""
    paths = {"path": tmp_path / "train", "trusted": tmp_path / "checked", "test": tmp_path / "test"}
    made = [write(path, 20 - 5 * seed, seed) for seed, path in enumerate(paths.values())]
    return {name: str(path) for name, path in paths.items()}, made[0]


def refused(**options):
    with pytest.raises(MetalossError) as error:
        ImageFolders(**options).build(0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_part_is_its_folder_scaled_by_the_training_pictures(folders):
    paths, made = folders
    task = ImageFolders(**paths, size=SIZE).build(0)
    assert [len(part.targets) for part in (task.train, task.valid, task.test)] == [40, 30, 20]
    train = np.concatenate([made["cat"], made["dog"]]).transpose(0, 3, 1, 2).astype(np.float64)
    mean, std = (getattr(train, of)((0, 2, 3))[:, None, None] for of in ("mean", "std"))
    np.testing.assert_allclose(task.train.inputs, (train - mean) / std, atol=1e-5)
    assert task.train.targets.tolist() == [0] * 20 + [1] * 20
    assert (task.name, task.input_shape, task.pipeline.classes) == (
        "train",
        (3, SIZE, SIZE),
        ["cat", "dog"],
    )


def test_the_task_keeps_its_contract(folders):
    results = check_part("task", "images", ImageFolders(path=folders[0]["path"], size=8))
    assert [f"{r.name}: {r.message}" for r in results if not r.passed] == []


def test_any_size_becomes_one_and_grey_stays_grey(tmp_path):
    folder = tmp_path / "grey"
    write(folder, 10, 0, mode="L")
    flat = np.tile(np.arange(64, dtype=np.uint8), (16, 1))  # wide: the middle is taken
    Image.fromarray(flat).save(folder / "cat" / "wide.png")
    deep = np.full((16, 16), 200 * 256, dtype=np.uint16)
    Image.fromarray(deep).save(folder / "dog" / "deep.png")
    table = ImageFolders(path=str(folder), size=SIZE).table()
    assert table.inputs.shape == (22, 1, SIZE, SIZE)
    assert (table.inputs[10, 0] == np.arange(24, 40)).all()
    assert (table.inputs[21, 0] == 200).all()
    half = ImageFolders(path=str(folder), size=8).table().inputs[0, 0]
    whole = table.inputs[0, 0].astype(float)
    blocks = whole.reshape(8, 2, 8, 2).mean((1, 3))
    assert np.abs(half - blocks).mean() < 8
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(folder / "cat" / "colour.png")
    assert ImageFolders(path=str(folder), size=SIZE).table().inputs.shape == (23, 3, SIZE, SIZE)


def test_damaged_files_are_left_out_and_counted(folders):
    paths, made = folders
    folder = Path(paths["path"])
    content = (folder / "cat/003.png").read_bytes()
    (folder / "cat/003.png").write_bytes(content[: len(content) // 2])
    (folder / "dog/a.jpg").write_bytes(b"no picture")
    message = r"train: 2 of 41 pictures cannot be read and are left out, such as cat/003.png$"
    with pytest.warns(DataWarning, match=message):
        table = ImageFolders(path=paths["path"], size=SIZE).table()
    assert np.bincount(table.targets).tolist() == [19, 20]
    assert (table.inputs[3] == made["cat"][4].transpose(2, 0, 1)).all()


def test_what_is_not_a_task_is_refused_or_said_in_one_line(folders, tmp_path):
    paths, _ = folders
    assert refused() == "task=images needs task.path=FOLDER"
    assert "no such folder; expected a folder with a subfolder" in refused(path="nowhere")
    (tmp_path / "empty").mkdir()
    assert "no subfolders; expected a folder with" in refused(path=str(tmp_path / "empty"))
    (tmp_path / "empty" / "cat").mkdir()
    assert "no pictures in its subfolders; expected" in refused(path=str(tmp_path / "empty"))
    write(tmp_path / "few", 3, 0)
    assert "few: 6 pictures in 2 subfolders; expected at least 20 in two or more" in refused(
        path=str(tmp_path / "few")
    )
    write(tmp_path / "birds", 3, 9, classes=("bird",))
    assert refused(path=paths["path"], trusted=str(tmp_path / "birds")).endswith(
        f"birds: none of its classes occurs in {paths['path']}"
    )
    shutil.copytree(tmp_path / "birds" / "bird", tmp_path / "checked" / "bird")
    shutil.copy(tmp_path / "train/cat/000.png", tmp_path / "checked/cat/new.png")
    with pytest.warns(DataWarning) as said:
        task = ImageFolders(**paths, size=SIZE).build(0)
    assert task.outputs == 3
    assert [str(one.message) for one in said] == [
        f"{paths['trusted']}: 1 of 34 pictures are in {paths['path']} too",
        f"{paths['path']}: classes that occur in one place only: 'bird' in checked",
    ]


def test_a_run_predicts_a_folder_by_its_own_numbers(folders, tmp_path):
    paths, _ = folders
    words = [f"task.{name}={path}" for name, path in paths.items()]
    words += ["task=images", f"task.size={SIZE}", "model.hidden=[8]", "schedule=static"]
    words += ["loss=cross_entropy", "steps=60", "tracker=[]", "compile=off"]
    run = metaloss.train([*words, f"output={tmp_path / 'run'}"])
    assert run.summary.metrics["test/error"] < 0.2
    shutil.move(tmp_path / "run", tmp_path / "moved")
    run = load_run(tmp_path / "moved")
    test = ImageFolders(**paths, size=SIZE).build(0).test
    table = predict_file(run, tmp_path / "test", tmp_path / "out.csv")
    names = [f"{name}/{number:03d}.png" for name in ("cat", "dog") for number in range(10)]
    assert table["file"].tolist() == names
    files = [str(tmp_path / "test" / name) for name in names]
    outputs = run.outputs(files)
    assert torch.equal(load_pipeline(run.folder).encode(files), test.inputs)
    shares = outputs.double().softmax(1).numpy()
    assert (table[["p(cat)", "p(dog)"]].to_numpy() == shares).all()
    wrong = outputs.argmax(1) != test.targets
    assert wrong.double().mean().item() == pytest.approx(run.summary.metrics["test/error"])
    one = predict_file(run, tmp_path / "test/dog/000.png", tmp_path / "one.csv")
    assert one["file"].tolist() == ["000.png"]
    with pytest.raises(MetalossError, match="no such file; expected a picture or a folder"):
        predict_file(run, tmp_path / "test/bird.png", tmp_path / "two.csv")
    with pytest.raises(MetalossError, match="pictures in float32; expected uint8, 0 to 255"):
        run.predict(test.inputs)


def test_lazy_pictures_are_the_same_bit_for_bit(folders):
    paths, _ = folders
    plain = ImageFolders(**paths, size=SIZE, label_noise=0.2).build(0)
    task = ImageFolders(**paths, size=SIZE, label_noise=0.2, lazy=True).build(0)
    assert plain.pipeline.to_dict() == task.pipeline.to_dict()
    for part in ("train", "valid", "test"):
        one, other = getattr(plain, part), getattr(task, part)
        assert torch.equal(one.inputs, other.inputs[:])
        assert torch.equal(one.targets, other.targets)


def test_transforms_draw_anew_for_training_pictures_alone(folders):
    paths, _ = folders
    named = [
        "RandomResizedCrop",
        "RandomHorizontalFlip",
        "ColorJitter",
        "RandAugment",
        "RandomErasing",
    ]
    task = ImageFolders(**paths, size=SIZE, transforms=named).build(0)
    plain = ImageFolders(**paths, size=SIZE).build(0)
    assert task.train.inputs.shape == (40, 3, SIZE, SIZE)
    rows = torch.arange(8)
    one, again, other = (
        next(task.train.inputs.read([task.train.inputs.asked(rows, key)])).inputs
        for key in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, plain.train.inputs[:8])
    assert torch.equal(task.valid.inputs, plain.valid.inputs)
    for name in ("AutoAugment", "AugMix", "TrivialAugmentWide", "GaussianBlur", "RandomGrayscale"):
        made = ImageFolders(path=paths["path"], size=SIZE, transforms=[name]).build(0)
        assert made.train.inputs[:4].isfinite().all()


def test_lazy_options_that_are_wrong(folders):
    path = folders[0]["path"]
    assert "did you mean 'RandAugment'" in refused(path=path, transforms=["RandAugmen"])
    assert "task.lazy=false" in refused(path=path, lazy=False, transforms=["AugMix"])
    assert "task.input_noise=0.1" in refused(path=path, lazy=True, input_noise=0.1)
    assert "task.workers=-1" in refused(path=path, workers=-1)


def test_a_lazy_run_of_pictures_predicts_and_has_suspects(folders, tmp_path):
    paths, _ = folders
    words = [f"task.{name}={path}" for name, path in paths.items()]
    run = metaloss.train(
        ["task=images", *words, f"task.size={SIZE}", "task.transforms=[RandomHorizontalFlip]"]
        + ["schedule=static", "loss=cross_entropy", "steps=5", "tracker=[]", "compile=off"]
        + [f"output={tmp_path / 'run'}"]
    )
    assert len(run.suspects()) == 40
    assert run.evaluate().metrics.keys() >= {"error"}
