"""The page holds the numbers of the run or the study, and nothing in it is run or fetched."""

import json
import math
import re
import sys
from dataclasses import replace
from html import escape

import pytest

import metaloss
from metaloss.cli.main import main
from metaloss.core.storage.run_folder import JournalRow, read_run
from metaloss.errors import MetalossError
from metaloss.study.plots.loss_plot import loss_over_time
from metaloss.study.plots.style import SPLITS
from metaloss.study.report.page import Chart, Table, to_html
from metaloss.study.report.report import write_report
from metaloss.study.report.run_page import _learning, run_sections
from metaloss.study.report.study_page import _heat_map
from metaloss.study.tables.table_text import from_json, to_json

from .conftest import EVIL


def own(path):
    """The page without Plotly."""
    text = path.read_text()
    return re.sub(r"<script>\n/\*\*.*?</script>", "", text, flags=re.DOTALL)


def data_of(text):
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    return [json.loads(one) for one in found]


def test_a_run_s_page_holds_its_journal(run):
    page = own(write_report(run))
    charts = data_of(page)
    steps, errors = read_run(run).series("test/error", phase="train")
    (drawn,) = [
        trace
        for trace in charts[0]["traces"]
        if trace["name"] == "test" and len(trace["x"]) == len(steps)
    ]
    assert drawn["y"] == pytest.approx(errors, rel=1e-5)
    assert "3 bad steps" in page
    assert charts[0]["layout"]["shapes"][0]["x0"] == 200
    assert "task.name" in page


def test_the_slider_has_the_loss_at_every_moment(run):
    loss = loss_over_time(read_run(run), most=60)
    slider = next(s for s in run_sections(read_run(run)) if s.title == "The loss over training")
    charts = slider.blocks[1].charts
    assert slider.blocks[1].moments == loss.steps.tolist()
    for chart, curves in zip(charts, loss.curves.values(), strict=False):
        (moving,) = [trace for trace in chart.traces if "moments" in trace]
        assert (moving["moments"] == curves).all()
        assert len(curves) == len(loss.steps) == 5


def test_an_unfinished_run_has_a_page(run):
    (run / "summary.json").unlink()
    assert "The run has not finished." in own(write_report(run))


def test_a_study_s_page_holds_every_number_of_its_tables(study):
    page = own(write_report(study))
    for block in ("clean", "noisy"):
        table = from_json((study / block / "table.json").read_text())
        assert block in page
        for line in table.lines:
            assert f'data-value="{line.final.mean!r}"' in page
    heat = next(c for c in data_of(page) if c["traces"][0]["type"] == "heatmap")["traces"][0]
    assert heat["y"] == ["clean", "noisy"]
    assert [row[0] for row in heat["z"]] == [0, 0]


def test_a_perfect_score_has_the_fullest_colour(block):
    tables = {"a": block({"ours": [0.2], "perfect": [0.0], "worse": [0.4], "none": [math.nan]})}
    shades = _heat_map(tables, "ours").traces[0]["z"][0]
    assert shades == pytest.approx([0, -math.log(2), math.log(2), math.nan], nan_ok=True)


def test_curves_go_on_to_the_end_of_the_longest_run(study):
    journal = study / "clean" / "gce" / "seed1" / "journal.jsonl"
    whole = journal.read_text().splitlines(keepends=True)
    steps, _ = read_run(journal.parent).series("valid/error", phase="train")
    journal.write_text("".join(whole[: len(whole) // 2]))
    drawn = [chart for chart in data_of(own(write_report(study))) if len(chart["traces"]) == 3]
    (gce,) = [trace for trace in drawn[0]["traces"] if trace["name"] == "gce"]
    assert gce["x"][-1] == steps[-1]
    assert len(gce["y"]) == len(steps)


def test_every_split_of_a_run_has_a_line_of_its_own(run):
    names = [f"{split}/error" for split in SPLITS]
    row = JournalRow(step=1, phase="train", phase_step=1, numbers=dict.fromkeys(names, 0.5))
    made = replace(read_run(run), journal=(row, replace(row, step=2, phase_step=2)))
    (chart,) = _learning(made)
    pens = {(trace["line"]["color"], trace["line"]["dash"]) for trace in chart.traces}
    assert len(pens) == len(chart.traces) == 9


def test_names_cannot_become_html(study):
    page = own(write_report(study))
    assert "<script>window.evil" not in page
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in page
    drawn = [chart["traces"][0].get("x", []) for chart in data_of(page)]
    assert any(escape(EVIL, quote=False) in names for names in drawn)


def test_the_page_asks_for_nothing_outside(run):
    page = own(write_report(run))
    assert re.findall(r'(?:src|href)="(?!#|data:)', page) == []
    assert "@import" not in page
    assert "fetch(" not in page


def test_numbers_that_are_not_finite_are_shown_as_missing():
    import pandas as pd

    chart = Chart(title="a", traces=[{"y": [1.0, float("nan"), float("inf")]}])
    table = Table(frame=pd.DataFrame({"row": ["a"], "x": [float("nan")]}, dtype=object))
    assert '"y": [1.0, null, null]' in chart.html("c")
    assert "–</td>" in table.html("t")


def test_tables_are_read_as_they_were_written(study):
    text = (study / "clean" / "table.json").read_text()
    notes = json.loads(text)["notes"]
    assert to_json(from_json(text), notes) == text


@pytest.mark.parametrize("text", ["", "[]", "{}", "\xff\xfe", '{"lines": [{}], "aside": []}'])
def test_a_damaged_table_is_named(text, study, capsys):
    (study / "noisy" / "table.json").write_bytes(text.encode("latin-1"))
    assert main(["report", str(study)]) == 2
    said = capsys.readouterr().err
    assert "table.json: the table is damaged or of another version" in said
    assert said.count("\n") == 1
    assert not (study / "report.html").exists()


def test_what_has_no_page_is_said_in_one_line(tmp_path, run, runs, capsys):
    for seed in (0, 1):
        runs.write_run(tmp_path / "group" / f"seed{seed}", ("task=digits", f"seed={seed}"))
    (tmp_path / "empty").mkdir()
    for folder, words in (
        ("group", "holds several runs: give one of"),
        ("empty", "is not the folder of a run"),
        ("none", "no such folder"),
    ):
        assert main(["report", str(tmp_path / folder)]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def test_plotly_is_named_if_it_is_missing(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MetalossError, match=r"pip install 'metaloss\[report\]'"):
        to_html("a", [])


def test_the_command_writes_where_it_is_told(run, tmp_path, capsys):
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_finished_run_s_page_has_its_test_rows_and_suspects(tmp_path):
    words = ["task=digits", "task.label_noise=0.4", "steps=60", "schedule=static"]
    run = metaloss.train([*words, "tracker=[]", f"output={tmp_path / 'run'}"])
    page = own(write_report(run.folder))
    found, suspects = run.evaluate(), run.suspects()
    matrix = next(
        chart["traces"][0] for chart in data_of(page) if chart["traces"][0]["type"] == "heatmap"
    )
    assert matrix["text"] == found.confusion.tolist()
    assert f"<dd>{found.metrics['error']:.4g}</dd>" in page
    assert page.count('<img alt="') == 48
    assert f'data-value="{float(suspects["score"].iloc[0])!r}"' in page


def test_rows_that_are_gone_are_said(tmp_path):
    file = tmp_path / "rows.csv"
    lines = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(80)]
    file.write_text("\n".join(["x,y,target", *lines]) + "\n")
    words = ["task=csv", f"task.path={file}", "task.target=target", "steps=5", "schedule=static"]
    run = metaloss.train([*words, "tracker=[]", f"output={tmp_path / 'run'}"])
    file.unlink()
    page = own(write_report(run.folder))
    assert page.count("Not shown: ") == 2
