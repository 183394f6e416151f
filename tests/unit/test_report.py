from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from enzyme_stability.errors import DataError
from enzyme_stability.prediction import Prediction
from enzyme_stability.report import CHART_ROWS, ERROR_ROWS, TABLE_ROWS, write_report

PREDICTOR = SimpleNamespace(
    name="trial", digest="0123456789abcdef" * 4, manifest={"description": "Answers < 90 degC only."}
)
HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"' onmouseover=alert(2) {{ 7 * 7 }}"
DASH = "\u2013"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def ok(name: str, tm: float, lower: float, upper: float, *, in_domain: bool = True, note: str = "") -> Prediction:
    return Prediction(name, 100, tm, lower, upper, in_domain, "ok", note)


def bad(name: str, note: str = "the sequence is empty") -> Prediction:
    return Prediction(name, None, None, None, None, None, "error", note)


ROWS = [
    ok("across", 60.0, 50.0, 70.0),
    bad("broken", "'1' at position 4 is not an amino acid"),
    ok("hot", 75.0, 60.0, 80.0, in_domain=False, note="out of domain: unusual amino-acid composition"),
    ok("cool", 45.0, 40.0, 59.99),
    ok("warm", 62.5, 50.0, 60.0),
]


class Page(HTMLParser):
    """What a browser would make of the page: its elements, the rows of its table, the text of its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._in: list[str] = []
        self.feed(self.html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self._in.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self._in.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if "script" in self._in:
            self.scripts[-1] += data
        elif "style" not in self._in:
            self.words.append(data)
            if "td" in self._in or "th" in self._in:
                self.rows[-1][-1] += data.strip()

    def all(self, tag: str, **attrs: str) -> list[dict[str, str | None]]:
        wanted = {name.strip("_").replace("_", "-"): value for name, value in attrs.items()}
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]

    def counts(self) -> dict[str, int]:
        found = re.findall(r'data-count="(\w+)">([\d,]+)<', self.html)
        return {name: int(number.replace(",", "")) for name, number in found}

    def data(self) -> dict:
        return json.loads(self.scripts[0])


@pytest.fixture
def report(tmp_path):
    def write(rows, coverage=0.9, source="/home/someone/enzymes.fasta"):
        path = tmp_path / "report.html"
        write_report(path, rows, PREDICTOR, coverage, source)
        return Page(path)

    return write


def test_rows_are_ranked_by_tm_and_errors_come_last(report):
    header, *rows = report(ROWS).rows
    assert header[:4] == ["Rank", "Id", "Tm (°C)", "90\u202f% interval (°C)"]
    assert [row[:3] for row in rows] == [
        ["1", "hot", "75.00"], ["2", "warm", "62.50"], ["3", "across", "60.00"], ["4", "cool", "45.00"],
        [DASH, "broken", DASH],
    ]  # fmt: skip
    assert rows[0][3:] == [
        f"60.00 {DASH} 80.00",
        "▲ above",
        "100",
        "no",
        "ok",
        "out of domain: unusual amino-acid composition",
    ]
    assert rows[4][-2:] == ["error", "'1' at position 4 is not an amino acid"]


def test_equal_tm_shares_a_rank_and_keeps_the_order_of_the_file(report):
    rows = [ok("b", 50, 40, 60), ok("a", 50, 40, 60), ok("top", 51, 40, 60), ok("last", 49, 40, 60)]
    assert [row[:2] for row in report(rows).rows[1:]] == [["1", "top"], ["2", "b"], ["2", "a"], ["4", "last"]]


def test_a_bound_on_the_threshold_counts_as_above_for_the_lower_and_undecided_for_the_upper(report):
    page = report(ROWS)
    assert [row[4] for row in page.rows[1:]] == ["▲ above", "◆ undecided", "◆ undecided", "▼ below", DASH]
    assert page.counts() == {
        "above": 1, "above_outside": 1, "undecided": 2, "undecided_outside": 0, "below": 1, "below_outside": 0,
    }  # fmt: skip


def test_the_counts_a_reader_can_ask_for_are_exact_at_every_tenth_of_a_degree(report):
    draw = random.Random(3)
    rows = []
    for k in range(400):
        tm, below, above = round(draw.uniform(20, 110), 2), draw.choice([0, 0.1, 3.33]), draw.uniform(0, 9)
        rows.append(ok(str(k), tm, round(tm - below, 1 + k % 2), round(tm + above, 1 + k % 2), in_domain=k % 3 > 0))
    data = report(rows).data()
    grid = data["grid"]
    assert (data["total"], data["outside"]) == (400, 134)
    for tenths in range(grid["first"] - 5, grid["first"] + len(grid["above"]) + 5):
        threshold, place = tenths / 10, min(max(tenths - grid["first"], 0), len(grid["above"]) - 1)
        above = [row for row in rows if row.tm_lower_celsius >= threshold]
        below = [row for row in rows if row.tm_upper_celsius < threshold]
        for name, group in (("above", above), ("below", below)):
            assert grid[name][place] == len(group), threshold
            assert grid[f"{name}_outside"][place] == sum(not row.in_domain for row in group), threshold


def test_marks_stand_where_their_temperature_is(report):
    page = report([ok("a", 55.0, 47.5, 80.0), ok("b", 48.0, 40.0, 79.0, in_domain=False)])
    assert page.data()["axis"] == [40, 80]
    first = page.html.split('<g class="mark undecided" data-lower="47.5" data-upper="80.0">')[1].split("</g>")[0]
    assert '<line x1="18.75%" x2="100.0%" y1="34" y2="34"/><circle cx="37.5%" cy="34" r="4"/>' in first
    second = page.html.split('<g class="mark undecided outside" data-lower="40.0" data-upper="79.0">')[1]
    assert '<line x1="0.0%" x2="97.5%" y1="54" y2="54"/><circle cx="20.0%" cy="54" r="4"/>' in second.split("</g>")[0]
    assert '<text class="tick" x="25.0%" y="82">50</text>' in page.html
    lines = page.all("line", _class="threshold")
    assert len(lines) == 2 + 2  # the two plots, the two rows
    assert {(line["x1"], line["x2"]) for line in lines} == {("50.0%", "50.0%")}


def test_histogram_stacks_out_of_domain_on_top_and_counts_every_row(report):
    rows = [ok(f"a{k}", 50.0 + k / 100, 40, 80) for k in range(30)]
    rows += [ok(f"b{k}", 59.0, 40, 80, in_domain=k > 9) for k in range(30)]
    page = report(rows)
    bars = page.html.split('<g class="bar">')[1:]
    assert [bar.split("<title>")[1].split("</title>")[0] for bar in bars] == [
        "50 to 52 °C: 30 proteins, 0 out of domain", "58 to 60 °C: 30 proteins, 10 out of domain",
    ]  # fmt: skip
    solid, hollow = re.findall(r'x="([\d.]+)%" width="([\d.]+)%" y="([\d.]+)" height="([\d.]+)"', bars[1])
    scale = 160 / 30  # the count axis ends at 30
    assert solid == ("45.0", "5.00", f"{184 - 20 * scale:.2f}", f"{20 * scale:.2f}")
    assert hollow == ("45.0", "5.00", f"{184 - 30 * scale:.2f}", f"{10 * scale:.2f}")


@pytest.mark.parametrize("where", ["id", "note", "error", "source"])
def test_nothing_from_a_file_can_run_in_the_page(report, where):
    rows = {
        "id": [ok(HOSTILE, 60, 50, 70)],
        "note": [ok("a", 60, 50, 70, note=HOSTILE)],
        "error": [bad(HOSTILE, HOSTILE)],
        "source": [],
    }[where]
    page = report(rows, source=HOSTILE.replace("/", "") if where == "source" else "x.fasta")
    assert "alert" in page.text  # shown as text
    assert len(page.all("script")) == 2
    assert not page.all("img")
    assert not [attr for _, attrs in page.elements for attr in attrs if attr.startswith("on")]
    assert not any("alert" in script for script in page.scripts)
    assert "{{ 7 * 7 }}" in page.text


def test_only_the_own_script_may_run(report):
    page = report(ROWS)
    (policy,) = page.all("meta", http_equiv="Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy["content"].startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy["content"]


def test_the_page_needs_nothing_from_outside(report):
    page = report(ROWS)
    assert "http://" not in page.html
    assert "https://" not in page.html
    assert "@import" not in page.html
    assert "url(" not in page.html
    assert {attrs["href"] for _, attrs in page.elements if "href" in attrs} == {"#table"}
    assert not [attrs for _, attrs in page.elements if "src" in attrs]


def test_the_head_says_what_was_predicted_by_what(report):
    text = report(ROWS, coverage=0.955).text
    assert "enzymes.fasta" in text
    assert "/home/someone" not in text
    assert "Sequences 5 Errors 1 Out of domain 1 Median Tm 61.2 °C" in text
    assert "Interval 95.5 % Model trial 0123456789ab Answers < 90 degC only." in text
    assert "standard input" in report(ROWS, source="-").text


def test_more_rows_than_the_page_holds_are_said_to_be_left_out(report):
    rows = [bad(f"e{k}") for k in range(ERROR_ROWS + 1)]
    rows += [ok(f"p{k}", 40 + k / 100, 30, 75) for k in range(TABLE_ROWS + 1)]
    page = report(rows)
    names = [row[1] for row in page.rows[1:]]
    assert len(names) == TABLE_ROWS
    assert names[0] == f"p{TABLE_ROWS}"
    assert names[-1] == f"e{ERROR_ROWS - 1}"
    assert "Shown are 1,800 of 2,001 predictions, the highest first, and 200 of 201 errors." in page.text
    assert "The table output has all 2,202 rows" in page.text
    assert page.counts()["undecided"] == TABLE_ROWS + 1
    assert f"The {CHART_ROWS} with the highest Tm" in page.text
    assert len(re.findall('<g class="mark ', page.html)) == CHART_ROWS


def test_a_page_that_holds_every_row_does_not_speak_of_rows_left_out(report):
    page = report([ok(str(k), 60, 50, 70) for k in range(TABLE_ROWS)])
    assert len(page.rows) == 1 + TABLE_ROWS
    assert "Shown are" not in page.text


def test_no_sequences(report):
    page = report([])
    assert "There were no sequences in this file." in page.text
    assert not page.rows
    assert not page.all("svg")


def test_only_errors(report):
    page = report([bad("a"), bad("b")])
    assert "No sequence could be predicted." in page.text
    assert [row[1] for row in page.rows[1:]] == ["a", "b"]
    assert not page.all("svg")
    assert not page.counts()


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("width", [0.0, 12.5])
def test_one_tm_only_still_gives_axes(report, rows, width):
    page = report([ok(str(k), 60.0, 60.0 - width, 60.0 + width) for k in range(rows)])
    low, high = page.data()["axis"]
    assert low <= 60 - width
    assert high >= 60 + width
    assert low < high
    assert page.html.count('<g class="bar">') == 1
    assert not re.search(r'"(nan|inf)', page.html)


def test_a_long_name_is_whole_in_its_tooltip(report):
    name = "sp|" + "A" * 300
    page = report([ok(name, 60, 50, 70)])
    assert page.all("li", title=name)
    assert page.all("th", title=name)


def test_the_same_rows_give_the_same_bytes(report):
    assert report(ROWS).html == report(list(ROWS)).html


def test_a_folder_that_is_not_there_is_an_error_in_words(tmp_path):
    with pytest.raises(DataError, match=r"cannot write the report to .*missing.*: No such file or directory"):
        write_report(tmp_path / "missing" / "r.html", ROWS, PREDICTOR, 0.9, "x.fasta")


@pytest.mark.parametrize("target", [".", "/dev/null", "/"])
@pytest.mark.skipif(os.name != "posix", reason="devices of POSIX")
def test_what_is_no_file_is_not_replaced(tmp_path, target, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="name another"):
        write_report(Path(target), ROWS, PREDICTOR, 0.9, "x.fasta")
    assert not list(tmp_path.iterdir())
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_failed_write_leaves_the_earlier_report_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("earlier")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_report(path, ROWS, PREDICTOR, 0.9, "x.fasta")
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "real.html")
    write_report(tmp_path / "link.html", ROWS, PREDICTOR, 0.9, "x.fasta")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").is_file()


def test_jinja_is_loaded_only_for_a_report():
    code = "import sys, enzyme_stability.report; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def in_browser(path: Path) -> str:
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    switches += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={path.parent}/user"]
    done = subprocess.run(
        [CHROMIUM, *switches, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_script_starts_under_the_policy_of_the_page(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, ROWS, PREDICTOR, 0.9, "x.fasta")
    assert '<p class="control" hidden' in path.read_text()
    assert '<p class="control">' in in_browser(path)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_answers_another_temperature_sorts_and_filters(tmp_path, report):
    steps = """<script>
      const put = (id, value) => {
        const box = document.getElementById(id);
        box.value = value;
        box.dispatchEvent(new Event("input"));
      };
      const rows = () => [...document.querySelectorAll("tbody tr:not([hidden])")];
      const column = (n) => rows().map((row) => row.cells[n].textContent);
      const said = [];
      put("threshold", "50");
      said.push([...document.querySelectorAll("[data-count]")].map((e) => e.textContent));
      const line = document.querySelector("line.threshold");
      said.push([document.querySelector("h2").textContent, line.getAttribute("x1")]);
      said.push(column(4));
      const id = document.querySelectorAll("thead th")[1];
      id.querySelector("button").click();
      said.push([id.getAttribute("aria-sort"), ...column(1)]);
      id.querySelector("button").click();
      said.push([id.getAttribute("aria-sort"), ...column(1)]);
      put("filter", "AMINO");
      said.push(column(1));
      document.body.textContent = "SAID" + JSON.stringify(said) + "END";
    </script></body>"""
    page = re.sub("<meta http-equiv[^>]*>", "", report(ROWS).html).replace("</body>", steps)
    (tmp_path / "tried.html").write_text(page, encoding="utf-8")
    said = json.loads(in_browser(tmp_path / "tried.html").split("SAID")[-1].split("END")[0])
    assert said == [
        ["3", "1", "1", "0", "0", "0"],
        ["Which survive 50 °C?", "25%"],
        ["▲ above", "▲ above", "▲ above", "◆ undecided", DASH],
        ["ascending", "across", "cool", "hot", "warm", "broken"],
        ["descending", "warm", "hot", "cool", "across", "broken"],
        ["hot", "broken"],
    ]
