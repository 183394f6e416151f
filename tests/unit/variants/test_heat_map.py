"""The heat map shows every substitution in its place, says what the sign means, and lets nothing of a stranger run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from enzyme_stability.errors import ConfigError, DataError, MissingDependencyError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.heat_map import CHEMISTRY, LONGEST_IN_A_PICTURE, TABLE_ROWS, heat_map, verdict
from enzyme_stability.variants.scan import SIGN, Estimate, Scan

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"' onmouseover=alert(2) {{ 7 * 7 }}"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def made_up(length: int, *, name: str = "trial", offset: int = 0, unknown: tuple[int, ...] = ()) -> Scan:
    draw = np.random.default_rng(length)
    near = np.convolve(draw.normal(0, 2, length + 4), np.full(5, 0.2), "valid")
    delta = -1 + near[:, None] + draw.normal(0, 1, (length, 20))
    residues = draw.choice(list(AMINO_ACIDS), length)
    residues[list(unknown)] = "X"
    for place, residue in enumerate(residues):
        delta[place, slice(None) if residue == "X" else AMINO_ACIDS.index(residue)] = np.nan
    estimate = Estimate(delta, delta - 2.5, delta + 3, 1 / (1 + np.exp(-delta)))
    return Scan(name, "".join(residues), estimate, offset)


class Page(HTMLParser):
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

    def data(self) -> dict:
        return json.loads(self.scripts[0])


def page_of(folder: Path, scan: Scan, coverage: float = 0.9) -> Page:
    heat_map(scan, folder / "scan.html", coverage)
    return Page(folder / "scan.html")


def text_of(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))


def test_the_rows_are_the_twenty_residues() -> None:
    assert sorted("".join(CHEMISTRY.values())) == list(AMINO_ACIDS)


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [(0.01, 2, "more stable"), (0, 2, "undecided"), (-2, 0, "undecided"), (-2, -0.01, "less stable")],
)
def test_the_verdict_needs_the_whole_interval_on_one_side(lower: float, upper: float, words: str) -> None:
    assert verdict(lower, upper) == words


def test_a_picture_says_the_sign_the_protein_and_the_numbers_of_its_residues(tmp_path) -> None:
    scan = made_up(130, name="lysozyme", offset=-8, unknown=(20,))
    heat_map(scan, tmp_path / "scan.svg", coverage=0.8)
    text = text_of(tmp_path / "scan.svg")
    assert {SIGN, "lysozyme", "wild type", "unknown", *CHEMISTRY} <= set(text)
    assert any(line.startswith("130 residues; 80 % interval ±2.8 °C") for line in text)
    numbers = [f"{scan.wild_type[place]}{place - 7}" for place in [0, *range(7, 130, 10)]]
    assert set(numbers) <= set(text)
    assert text.count("aromatic") == 2  # two panels


def test_the_colour_of_a_cell_is_that_of_its_substitution(tmp_path) -> None:
    delta = np.full((10, 20), -0.1)
    delta[3, AMINO_ACIDS.index("A")] = 5.0  # the first row, the fourth column
    delta[8, AMINO_ACIDS.index("P")] = -5.0  # the last row, the ninth column
    delta[:, AMINO_ACIDS.index("G")] = np.nan
    heat_map(Scan("x", "G" * 10, Estimate(delta, delta, delta, delta)), tmp_path / "scan.svg")
    svg = (tmp_path / "scan.svg").read_text(encoding="utf-8")
    pixels = re.search(r'xlink:href="data:image/png;base64,\s*([^"]+)"', svg)
    assert pixels is not None
    (tmp_path / "cells.png").write_bytes(base64.b64decode(pixels.group(1)))
    cells = np.asarray(Image.open(tmp_path / "cells.png").convert("RGB")).astype(int)
    assert cells.shape == (20, 10, 3)
    if cells[0, 3, 2] < cells[0, 3, 0]:  # an SVG may hold the rows from the bottom up
        cells = cells[::-1]
    red, _, blue = np.moveaxis(cells, 2, 0)
    assert np.argwhere(blue - red > 50).tolist() == [[0, 3]]
    assert np.argwhere(red - blue > 50).tolist() == [[19, 8]]


def test_a_long_protein_is_wrapped_and_the_picture_stays_small(tmp_path) -> None:
    heat_map(made_up(450), tmp_path / "scan.png")
    with Image.open(tmp_path / "scan.png") as picture:
        width, height = picture.size
    assert width < 2200
    assert 5 * 400 < height < 5 * 600
    assert (tmp_path / "scan.png").stat().st_size < 2_000_000


def test_the_same_scan_gives_the_same_bytes(tmp_path) -> None:
    for suffix in ("svg", "png", "html"):
        one, other = (tmp_path / f"{name}.{suffix}" for name in "ab")
        heat_map(made_up(30), one)
        heat_map(made_up(30), other)
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["$x^{_", "a\x00b\x1b[31m\ud800", "蛋白質", "<b>&", "n" * 500, ""])
def test_any_name_can_be_drawn_without_a_warning(tmp_path, name) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in ("svg", "png", "html"):
            heat_map(made_up(12, name=name), tmp_path / f"scan.{suffix}")
    ElementTree.parse(tmp_path / "scan.svg")  # noqa: S314 - written a moment ago


def test_too_long_for_a_picture_names_the_page(tmp_path) -> None:
    scan = made_up(LONGEST_IN_A_PICTURE + 1)
    with pytest.raises(DataError, match=r"up to 5000 residues and trial has 5001; name it \.html"):
        heat_map(scan, tmp_path / "scan.png")
    heat_map(scan, tmp_path / "scan.html")


@pytest.mark.parametrize("name", ["scan.pdf", "scan", "scan.html.gz"])
def test_an_unknown_suffix_says_which_there_are(tmp_path, name) -> None:
    with pytest.raises(DataError, match=r"written as \.png, \.svg or \.html"):
        heat_map(made_up(12), tmp_path / name)


def test_nothing_to_draw_and_a_coverage_out_of_bounds_are_errors(tmp_path) -> None:
    with pytest.raises(DataError, match="trial: no substitution has an estimate"):
        heat_map(made_up(12, unknown=tuple(range(12))), tmp_path / "scan.html")
    with pytest.raises(ConfigError, match="coverage=90"):
        heat_map(made_up(12), tmp_path / "scan.html", coverage=90)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_what_cannot_be_written_is_an_error_in_words(tmp_path, suffix) -> None:
    with pytest.raises(DataError, match=r"cannot write the heat map to .*: No such file or directory"):
        heat_map(made_up(12), tmp_path / "missing" / f"scan{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(DataError, match="name another"):
        heat_map(made_up(12), tmp_path / f"folder{suffix}")


def test_without_matplotlib_a_picture_says_what_to_install_and_a_page_needs_none(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match="'train' extra"):
        heat_map(made_up(12), tmp_path / "scan.png")
    heat_map(made_up(12), tmp_path / "scan.html")


def test_a_page_needs_nothing_but_the_base_install(tmp_path) -> None:
    heavy = ["pandas", "matplotlib", "scipy", "sklearn", "torch"]
    script = (
        "import sys, pathlib, numpy as np\n"
        "from enzyme_stability.variants.heat_map import heat_map\n"
        "from enzyme_stability.variants.scan import Estimate, Scan\n"
        "d = np.ones((10, 20)); d[:, 0] = np.nan\n"
        "heat_map(Scan('x', 'A' * 10, Estimate(d, d, d, d)), pathlib.Path(sys.argv[1]))\n"
        f"sys.exit(', '.join(set({heavy}) & set(sys.modules)) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.html")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_holds_every_substitution_to_a_hundredth(tmp_path) -> None:
    scan = made_up(40, offset=18, unknown=(5,))
    data = page_of(tmp_path, scan).data()
    assert (data["wild_type"], data["offset"], data["residues"]) == (scan.wild_type, 18, AMINO_ACIDS)
    delta, below, above, chance = (
        np.array(data[name], dtype=float).reshape(40, 20) for name in ("delta", "below", "above", "probability")
    )
    estimate = scan.estimate
    for held, wanted in (
        (delta, estimate.delta_tm), (delta - below, estimate.lower), (delta + above, estimate.upper),
        (chance / 100, estimate.probability),
    ):  # fmt: skip
        assert (np.isnan(held) == np.isnan(wanted)).all()
        np.testing.assert_allclose(held / 100, wanted, atol=0.00501)


def test_a_substitution_with_half_an_answer_is_unknown(tmp_path) -> None:
    scan = made_up(12)
    row, column = 3, (AMINO_ACIDS.index(scan.wild_type[3]) + 1) % 20
    scan.estimate.delta_tm[row, column] = 50.0
    scan.estimate.upper[row, column] = np.inf
    page = page_of(tmp_path, scan)
    assert page.data()["delta"][row * 20 + column] is None
    assert page.data()["limit"] < 10
    assert "+50.00" not in page.text


def test_the_table_needs_no_script_and_has_the_best_first(tmp_path) -> None:
    scan = made_up(60, offset=18)
    header, *rows = page_of(tmp_path, scan, coverage=0.955).rows
    assert header[1:] == ["Variant", "ΔTm (°C)", "95.5\u202f% interval (°C)", "Probability", "Status"]
    assert len(rows) == TABLE_ROWS
    values = np.sort(scan.estimate.delta_tm[np.isfinite(scan.estimate.delta_tm)])[::-1]
    assert [row[2] for row in rows] == [f"{value:+.2f}" for value in values[:TABLE_ROWS]]
    place, column = np.unravel_index(np.nanargmax(scan.estimate.delta_tm), (60, 20))
    best = values[0]
    assert rows[0][1:] == [
        f"{scan.wild_type[place]}{place + 19}{AMINO_ACIDS[column]}", f"{best:+.2f}",
        f"{best - 2.5:+.2f} to {best + 3:+.2f}", f"{1 / (1 + np.exp(-best)):.2f}", verdict(best - 2.5, best + 3),
    ]  # fmt: skip


def test_the_head_of_the_page_says_the_sign_and_counts(tmp_path) -> None:
    scan = made_up(60, name="lysozyme", offset=18, unknown=(4, 5))
    scan = Scan(scan.id, scan.wild_type, scan.estimate, 18, notes=("2 X left out",))
    page = page_of(tmp_path, scan)
    likely = int((scan.estimate.probability >= 0.5).sum())
    assert SIGN in page.text
    assert f"Residues 60 Numbered 19 to 78 Substitutions {58 * 19:,} Likely more stable {likely}" in page.text
    assert "Sequence: 2 X left out" in page.text


def test_nothing_from_a_file_can_run_in_the_page(tmp_path) -> None:
    scan = made_up(12, name=HOSTILE)
    page = page_of(tmp_path, Scan(HOSTILE, scan.wild_type, scan.estimate, notes=(HOSTILE,)))
    assert page.data()["id"] == HOSTILE
    assert len(page.scripts) == 2
    assert "alert" not in page.scripts[1]
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page.text


def test_only_the_own_script_may_run_and_nothing_comes_from_outside(tmp_path) -> None:
    page = page_of(tmp_path, made_up(12))
    (policy,) = (attrs["content"] for tag, attrs in page.elements if tag == "meta" and "http-equiv" in attrs)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy
    assert not re.search(r"https?://|@import|url\(", page.html)
    assert not [attrs for _, attrs in page.elements if "src" in attrs]


def test_a_page_of_2500_residues_stays_small(tmp_path) -> None:
    heat_map(made_up(2500), tmp_path / "scan.html")
    assert (tmp_path / "scan.html").stat().st_size < 1_500_000


def in_browser(path: Path) -> str:
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    switches += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={path.parent}/user"]
    done = subprocess.run(
        [CHROMIUM, *switches, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_script_starts_under_the_policy_of_the_page(tmp_path) -> None:
    heat_map(made_up(40), tmp_path / "scan.html")
    assert '<div id="explorer" hidden' in (tmp_path / "scan.html").read_text(encoding="utf-8")
    assert '<div id="explorer">' in in_browser(tmp_path / "scan.html")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_keys_read_out_filter_sort_and_the_selection_work(tmp_path) -> None:
    delta = np.full((300, 20), -1.0)
    for place, residue, value in ((0, "W", 3.0), (1, "W", 2.0), (299, "P", 1.0)):
        delta[place, AMINO_ACIDS.index(residue)] = value
    delta[:, AMINO_ACIDS.index("A")] = np.nan
    delta[1, AMINO_ACIDS.index("V")] = np.nan
    chance = np.where(np.isnan(delta), np.nan, np.where(delta > 0, 0.5 + delta / 10, 0.1))
    scan = Scan('a "b"', "A" * 300, Estimate(delta, delta - 2, delta + 2, chance), 18)
    steps = """<script>(async () => {
      const said = [];
      const by = (id) => document.getElementById(id);
      const press = (...keys) => {
        for (const key of keys) by("map").dispatchEvent(new KeyboardEvent("keydown", { key }));
        said.push(by("said").textContent);
      };
      const column = (n) => [...document.querySelectorAll("tbody tr")].map((row) => row.cells[n].textContent);
      by("map").focus();
      press();
      press("ArrowDown");
      press("ArrowRight");
      press("End", "ArrowDown");
      by("least").value = "0.5";
      by("least").dispatchEvent(new Event("input"));
      said.push(by("passed").textContent, column(1));
      document.querySelectorAll("thead button")[0].click();
      document.querySelectorAll("thead button")[0].click();
      said.push(column(1), document.querySelector("[aria-sort]").getAttribute("aria-sort"));
      document.querySelector("tbody button").click();
      press("Enter");
      press("Home");
      document.querySelectorAll("tbody input")[2].click();
      said.push(by("joined").textContent);
      let blob;
      URL.createObjectURL = (made) => ((blob = made), "#");
      by("download").click();
      said.push(await blob.text());
      by("chosen").querySelector("button").click();
      said.push(by("chosen").textContent);
      document.body.textContent = "SAID" + JSON.stringify(said) + "END";
    })();</script></body>"""
    page = re.sub("<meta http-equiv[^>]*>", "", page_of(tmp_path, scan).html).replace("</body>", steps)
    (tmp_path / "tried.html").write_text(page, encoding="utf-8")
    said = json.loads(in_browser(tmp_path / "tried.html").split("SAID")[-1].split("END")[0])

    def numbers(*values: str) -> str:
        return "ΔTm {} °C, 90\u202f% interval {} to {} °C, probability {}, {}".format(*values).replace("-", "\u2212")

    assert said == [
        "A19, wild type",
        "A19V, " + numbers("-1.00", "-3.00", "+1.00", "0.10", "undecided"),
        "A20V, unknown",
        "A318I, " + numbers("-1.00", "-3.00", "+1.00", "0.10", "undecided"),
        "3 substitutions",
        ["A19W", "A20W", "A318P"],
        ["A318P", "A20W", "A19W"],
        "descending",
        "A318P, " + numbers("+1.00", "-1.00", "+3.00", "0.60", "undecided, selected"),
        "A19P, " + numbers("-1.00", "-3.00", "+1.00", "0.10", "undecided"),
        "As one variant: A19W:A318P; ΔTm +4.00 °C if the effects add up.",
        "id,variant,position,wild_type,substitution,delta_tm_celsius,lower_celsius,upper_celsius,probability,status,sign\n"
        f'"a ""b""",A19W,19,A,W,3.00,1.00,5.00,0.80,more stable,"{SIGN}"\n'
        f'"a ""b""",A318P,318,A,P,1.00,-1.00,3.00,0.60,undecided,"{SIGN}"\n',
        "A318P +1.00 °C",
    ]
