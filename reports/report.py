"""Checks the project report, README.md beside this file, against its limits, or makes a page of it.

Needs the packages click and markdown only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import click
import markdown

REPORT = Path(__file__).parent / "README.md"
FIGURES = "figures/"
GROUPS = 5
CHECKLIST_WEEKS = ("Week 1", "Week 2", "Week 3", "Additional")
_ANSWER = re.compile(r"^### (\d+)\. (.+)$", re.MULTILINE)
_GROUP = re.compile(r"^## (.+)$", re.MULTILINE)
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_BOX = re.compile(r"^- \[( |x)\] (.+(?:\n  .+)*)$", re.MULTILINE)


@dataclass(frozen=True)
class Limits:
    """What an answer must keep to: words, and images; None for no limit."""

    words: tuple[int, int] | None = None
    images: tuple[int, int] = (0, 0)


_WORDS = {
    **dict.fromkeys((3, 4, 5, 8, 9, 10, 13, 15, 16, 18, 22, 23), (100, 200)),
    **dict.fromkeys((6, 7, 12), (50, 100)),
    **dict.fromkeys((11, 14), (200, 300)),
    **dict.fromkeys((17, 27), (50, 200)),
    **dict.fromkeys((25, 26), (200, 400)),
    24: (25, 100),
}
_IMAGES = {14: (1, 3), 19: (1, 2), 20: (1, 1), 21: (1, 1), 25: (1, 1)}
LIMITS = {number: Limits(_WORDS.get(number), _IMAGES.get(number, (0, 0))) for number in range(1, 28)}
"""By the number of the answer."""


def answers(text: str) -> dict[int, str]:
    """The text below each numbered heading, up to the next heading."""
    starts = [*_ANSWER.finditer(text)]
    ends = sorted([*(m.start() for m in starts), *(m.start() for m in _GROUP.finditer(text)), len(text)])
    return {int(m[1]): text[m.end() : next(end for end in ends if end > m.start())].strip() for m in starts}


def word_count(answer: str) -> int:
    """Words of an answer, as a reader counts them: no images, no code blocks, no addresses of links."""
    prose = _LINK.sub(r"\1", _IMAGE.sub("", _FENCE.sub("", answer)))
    return len([word for word in prose.split() if re.search(r"\w", word)])


def faults(text: str, folder: Path) -> Iterator[str]:
    """What is wrong with a report, a sentence each.

    Args:
        text: The report.
        folder: Where it lies, for its images and links.
    """
    found = answers(text)
    numbers = [int(match[1]) for match in _ANSWER.finditer(text)]
    if numbers != list(LIMITS):
        yield f"the answers are numbered {', '.join(map(str, numbers)) or 'not at all'}, not 1 to 27 in order"
    if (groups := len(_groups(text))) != GROUPS:
        yield f"the answers stand in {groups} groups, not {GROUPS}"
    for number, answer in found.items():
        yield from _limit_faults(number, answer)
    for name, address in [*_IMAGE.findall(text), *_LINK.findall(text)]:
        if not address.startswith(("https://", "http://", "#")) and not (folder / address.partition("#")[0]).exists():
            yield f"[{name}]({address}) leads nowhere"
    yield from _checklist_faults(text)


def _groups(text: str) -> list[str]:
    """Headings of the second level that have answers below them."""
    starts = [*_GROUP.finditer(text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    return [m[1] for m, end in zip(starts, ends, strict=True) if _ANSWER.search(text, m.end(), end)]


def _limit_faults(number: int, answer: str) -> Iterator[str]:
    limits = LIMITS.get(number, Limits())
    words, images = word_count(answer), _IMAGE.findall(answer)
    if not words:
        yield f"answer {number} is empty"
    if limits.words and not limits.words[0] <= words <= limits.words[1]:
        yield f"answer {number} has {words} words, not {limits.words[0]} to {limits.words[1]}"
    if not limits.images[0] <= len(images) <= limits.images[1]:
        yield f"answer {number} has {len(images)} images, not {limits.images[0]} to {limits.images[1]}"
    for _, address in images:
        if not address.startswith(FIGURES):
            yield f"answer {number}: {address} is not in {FIGURES}"


def _checklist_faults(text: str) -> Iterator[str]:
    front = text[: match.start()] if (match := _ANSWER.search(text)) else text
    for week in CHECKLIST_WEEKS:
        section = re.search(rf"^\*\*{week}\*\*$(.*?)(?=^\*\*|^#|\Z)", front, re.MULTILINE | re.DOTALL)
        boxes = _BOX.findall(section[1]) if section else []
        if not boxes:
            yield f"the checklist in front has no boxes for {week}"
        for tick, box in boxes:
            if tick == "x" and not _LINK.search(box):
                yield f"ticked without a link to its proof: {box[:60]}"
            if tick == " " and "not done, because" not in box:
                yield f"not ticked and without 'not done, because ...': {box[:60]}"


@click.group()
def report() -> None:
    """Check the project report, or make a page of it."""


@report.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=REPORT)
def check(file: Path) -> None:
    """Verify every limit; exit with 1 where one is not kept."""
    text = file.read_text(encoding="utf-8")
    wrong = list(faults(text, file.parent))
    for fault in wrong:
        click.echo(fault)
    for number, answer in answers(text).items():
        click.echo(f"{number:>2}  {word_count(answer):>3} words  {len(_IMAGE.findall(answer))} images")
    if wrong:
        raise SystemExit(1)
    click.echo("every limit is kept")


@report.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=REPORT)
@click.option("--output", "-o", type=click.Path(path_type=Path), default=REPORT.with_name("report.html"))
def html(file: Path, output: Path) -> None:
    """Make a page of the report, to lie in the same folder because of its images."""
    text = _BOX.sub(lambda box: f"- {'&#9745;' if box[1] == 'x' else '&#9744;'} {box[2]}", file.read_text("utf-8"))
    body = markdown.markdown(text, extensions=["tables", "fenced_code", "toc", "sane_lists"])
    title = escape(text.partition("\n")[0].removeprefix("# "))
    output.write_text(_PAGE.format(title=title, body=body), encoding="utf-8")
    click.echo(f"wrote {output}")


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 1rem/1.55 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
  h1, h2, h3 {{ line-height: 1.25; }}
  h2 {{ border-bottom: 1px solid #8886; padding-bottom: .2em; margin-top: 2.5em; }}
  img {{ max-width: 100%; height: auto; background: #fff; border: 1px solid #8884; border-radius: 4px; }}
  pre, code {{ font-family: ui-monospace, monospace; font-size: .9em; }}
  pre {{ overflow-x: auto; padding: .8em; background: #8881; border-radius: 4px; }}
  table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
  th, td {{ border: 1px solid #8886; padding: .25em .6em; text-align: left; }}
  ul:has(> li:first-child) {{ padding-left: 1.2em; }}
</style>
{body}
</html>
"""


if __name__ == "__main__":
    report()
