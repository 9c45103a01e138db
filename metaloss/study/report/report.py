"""``metaloss report``: decides whether a folder is a run or a study, and writes its page."""

from __future__ import annotations

from pathlib import Path

from metaloss.core.storage.files import write_atomically
from metaloss.core.storage.run_folder import read_run
from metaloss.errors import MetalossError
from metaloss.study.plots.panels import name_of
from metaloss.study.report.page import Section, to_html
from metaloss.study.report.run_page import run_sections
from metaloss.study.report.study_page import study_sections
from metaloss.study.spec.spec import Study
from metaloss.study.spec.study_file import STUDY_FILE, load_study
from metaloss.study.tables.table import Table
from metaloss.study.tables.table_text import from_json

_TABLE = "table.json"


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write one HTML file about a run or a study; return its path.

    The file needs no network and no other file. A run may be unfinished; a study must have its
    tables.

    Args:
        folder: The folder of a run, or the output folder of ``metaloss compare``.
        out: The file; default: ``report.html`` in the folder.

    Raises:
        MetalossError: If the folder has neither, or Plotly is not installed.

    Example:
        >>> import tempfile
        >>> from metaloss import train
        >>> run = train(["steps=5", "start.steps=5", "tracker=[]", f"output={tempfile.mkdtemp()}"])
        >>> write_report(run.folder).name
        'report.html'
    """
    folder = Path(folder)
    title, sections = _content(folder)
    path = folder / "report.html" if out is None else Path(out)
    write_atomically(path, to_html(title, sections).encode())
    return path


def _content(folder: Path) -> tuple[str, list[Section]]:
    tables, folders, study = _study(folder)
    if tables:
        title = study.description if study and study.description else folder.resolve().name
        return title, study_sections(tables, folders, study)
    if not folder.is_dir():
        raise MetalossError(f"{folder}: no such folder")
    run = read_run(folder)
    return name_of(run), run_sections(run)


def _study(folder: Path) -> tuple[dict[str, Table], dict[str, Path], Study | None]:
    """Return a study's tables and their folders, by block; empty if the folder has no table."""
    study = load_study(folder / STUDY_FILE) if (folder / STUDY_FILE).is_file() else None
    blocks = {block.name: folder / block.slug for block in study.blocks} if study else {}
    every = blocks or {"": folder}
    folders = {name: path for name, path in every.items() if (path / _TABLE).is_file()}
    if study is not None and not folders:
        raise MetalossError(f"{folder}: the comparison is not finished (no {_TABLE})")
    tables = {}
    for name, path in folders.items():
        try:
            tables[name] = from_json((path / _TABLE).read_text(encoding="utf-8", errors="replace"))
        except MetalossError as error:
            raise MetalossError(f"{path / _TABLE}: {error}") from error
    return tables, folders, study
