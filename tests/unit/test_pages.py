"""Pages that need nothing from elsewhere and trust no name, and files that appear whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

from enzyme_stability import pages
from enzyme_stability.errors import DataError
from enzyme_stability.pages import render, write_whole
from enzyme_stability.variants.heat_map import heat_map
from enzyme_stability.variants.scan import Estimate, Scan


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Folder with a template of its own."""
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "page.html.j2").write_text("{{ style }}|{{ script }}|{{ script_hash }}|{{ title }}|{{ data | tojson }}")
    (folder / "page.js").write_text("let a = 1 < 2;")
    (folder / "page.css").write_text("p > b {}")
    (folder / "base.css").write_text("p {}")
    monkeypatch.setattr(pages, "_TEMPLATES", folder)
    return folder


@pytest.mark.usefixtures("template")
def test_names_are_escaped_and_the_pages_own_parts_are_not() -> None:
    style, script, _, title, _ = render("page", title="<script>'", data={}).split("|")
    assert (style, script) == ("p > b {}", "let a = 1 < 2;")
    assert title == "&lt;script&gt;&#39;"


@pytest.mark.usefixtures("template")
def test_data_cannot_end_the_script_it_stands_in() -> None:
    data = render("page", title="", data={"b": "</script>", "a": 1}).split("|")[-1]
    assert data == '{"a":1,"b":"\\u003c/script\\u003e"}'


@pytest.mark.usefixtures("template")
def test_the_checksum_is_that_of_the_script() -> None:
    checksum = render("page", title="", data={}).split("|")[2]
    assert base64.b64decode(checksum) == hashlib.sha256(b"let a = 1 < 2;").digest()


@pytest.mark.usefixtures("template")
def test_later_styles_come_after_earlier_ones() -> None:
    assert render("page", styles=("base", "page"), title="", data={}).startswith("p {}p > b {}|")


@pytest.mark.usefixtures("template")
def test_a_value_that_is_missing_is_an_error_and_no_blank() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="title"):
        render("page", data={})


def test_a_real_page_loads_nothing_and_allows_its_own_script_alone(tmp_path: Path) -> None:
    tables = [np.full((3, 20), value) for value in (1.0, 0.5, 1.5, 0.8)]
    heat_map(Scan("<b>", "ACD", Estimate(*tables)), tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "<b>" not in page
    scripts = re.findall(r"<script(?![^>]*json)[^>]*>(.*?)</script>", page, re.DOTALL)
    checksums = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(checksums) == 1
    assert f"sha256-{checksums[0]}" in page


def test_a_file_is_replaced_by_the_whole_new_one(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for content in (b"first and longer", b"second"):
        write_whole(path, content, "the page")
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_still_points_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "real.html")
    write_whole(tmp_path / "link.html", b"x", "the page")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["nowhere/page.html", "file/page.html", "folder", "loop", "n" * 300, "nul\0"])
def test_a_place_that_cannot_be_written_is_named_and_left_as_it_was(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="cannot write the page to "):
        write_whole(tmp_path / name, b"x", "the page")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"old")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:1])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=os.strerror(28)):
        write_whole(path, b"new", "the page")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
