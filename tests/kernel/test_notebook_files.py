"""Notebooks as files: what is read, what is refused; a result is written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.notebooks import code, load, notebook_of, stdout
from unstuck.errors import ConfigError
from unstuck.headless.notebook import check_writable, read_notebook, tidy_outputs, write_notebook

if TYPE_CHECKING:
    from collections.abc import Iterable


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"[]", "no 'nbformat' key"),
        (b"{}", "no 'nbformat' key"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "no valid notebook"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}', "has no cells"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [1]}', "no valid"),
        (b'{"nbformat": "x", "cells": []}', "no valid notebook"),
        (b'{"nbformat": 99, "nbformat_minor": 0, "metadata": {}, "cells": []}', "no valid"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_notebook(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_notebook_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_notebook(tmp_path / "x.ipynb")
    with pytest.raises(ConfigError, match="is a folder"):
        read_notebook(tmp_path)


def test_a_notebook_of_version_3_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.ipynb"
    cell = {
        "cell_type": "code",
        "input": ["1"],
        "language": "python",
        "outputs": [],
        "metadata": {},
    }
    sheet = {"cells": [cell], "metadata": {}}
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [sheet]}
    path.write_text(json.dumps(old))
    assert read_notebook(path).cells[0].source == "1"


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for bad in (tmp_path, tmp_path / "no" / "o.ipynb", tmp_path / "file" / "o", Path("/proc/o")):
        with pytest.raises(ConfigError, match="cannot write"):
            check_writable(bad)
    check_writable(tmp_path / "o.ipynb")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_result_replaces_a_file_in_one_step_and_keeps_its_mode_and_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.ipynb", tmp_path / "link.ipynb"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    write_notebook(notebook_of("1"), link)
    assert link.is_symlink()
    assert load(real).cells[0].source == "1"
    assert real.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"real.ipynb", "link.ipynb"}


def test_a_result_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    notebook = notebook_of("1")
    with pytest.raises(ConfigError, match="cannot write"):
        write_notebook(notebook, tmp_path / "no" / "o.ipynb")


def test_text_that_is_not_unicode_is_kept_as_json_spells_it(tmp_path: Path) -> None:
    path = tmp_path / "o.ipynb"
    cell = code("1")
    cell.outputs = [stdout("lone \udc80 surrogate")]
    write_notebook(notebook_of(cell), path)
    [output] = json.loads(path.read_bytes())["cells"][0]["outputs"]
    assert "".join(output["text"]) == "lone \udc80 surrogate"


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a", "b\n", "c"], "ab\nc"),
        (["10%\r", "20%\r", "done\n"], "done\n"),
        (["a\r\n", "b\r\n"], "a\nb\n"),
        (["keep\nx\ry\nz"], "keep\ny\nz"),
        (["ends with a return\r"], "ends with a return\r"),
    ],
)
def test_pieces_of_a_stream_are_joined_as_a_terminal_shows_them(
    pieces: Iterable[str], text: str
) -> None:
    cell = code("1")
    cell.outputs = [stdout(piece) for piece in pieces]
    notebook = notebook_of(cell)
    tidy_outputs(notebook)
    [output] = notebook.cells[0].outputs
    assert output.text == text
