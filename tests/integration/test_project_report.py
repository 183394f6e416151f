"""The project report keeps to its limits, and what checks it sees where one is not kept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPORTS = Path(__file__).parents[2] / "reports"
TEXT = (REPORTS / "README.md").read_text(encoding="utf-8")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPORTS / "report.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_report_keeps_every_limit() -> None:
    done = run("check")
    assert done.returncode == 0, done.stdout
    assert "every limit is kept" in done.stdout


def answer(number: int) -> str:
    """An answer with its heading."""
    found = re.search(rf"^### {number}\. .*?(?=^#)|^### {number}\. .*", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


IMAGE = "![A figure](figures/architecture.png)"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (answer(6), answer(6) + "word " * 100, "answer 6 has"),
        (answer(8), "### 8. Coverage\n\nEnough.\n\n", "answer 8 has 1 words, not 100 to 200"),
        (answer(7), "", "the answers are numbered"),
        (answer(9), f"{answer(9)}\n{IMAGE}\n\n", "answer 9 has 1 images, not 0 to 0"),
        (answer(25), re.sub(r"!\[[^\]]*\]\([^)]*\)", "", answer(25)), "answer 25 has 0 images, not 1 to 1"),
        ("(figures/architecture.png)", "(figures/other.png)", "(figures/other.png) leads nowhere"),
        ("(figures/architecture.png)", "(README.md)", "answer 25: README.md is not in figures/"),
        ("**Week 2**", "**Later**", "no boxes for Week 2"),
        ("\n- [x] ", "\n- [x] A claim\n- [x] ", "ticked without a link to its proof: A claim"),
        ("\n- [x] ", "\n- [ ] A wish\n- [x] ", "without 'not done, because ...': A wish"),
        ("\n## ", "\n### 28. Another\n\nWords.\n\n## ", "the answers are numbered"),
    ],
)
def test_a_limit_that_is_not_kept_is_told(old: str, new: str, fault: str, tmp_path: Path) -> None:
    assert old in TEXT
    for name in ("figures", "report.py"):
        (tmp_path / name).symlink_to(REPORTS / name)
    (tmp_path / "README.md").write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    done = run("check", tmp_path / "README.md")
    assert done.returncode == 1
    assert fault in done.stdout


def test_the_page_has_every_answer_and_figure(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run("html", "--output", page).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert [int(n) for n in re.findall(r"<h3[^>]*>(\d+)\. ", text)] == list(range(1, 28))
    assert set(re.findall(r'<img[^>]* src="([^"]+)"', text)) == set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT))
    assert "[x]" not in text
