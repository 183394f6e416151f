"""What the site has beside the pages of docs/: a home page, tables of the reference, and files linked to.

On a code host README.md is the first page and a link may lead to any file. On the site README.md is the home page,
docs/index.md the list of all pages, and a file outside of docs/ a page of its own, so that no link leaves the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference_pages import routes, settings

REPOSITORY = Path(__file__).parents[2]
_RENAMED = {"README.md": "index.md", "docs/index.md": "pages.md"}
_GENERATED = {"<!-- every setting -->": settings, "<!-- every route -->": routes}
"""What stands in the place of a comment."""
_CODE_OR_LINK = re.compile(
    r"(^ *```.*?^ *```$|`[^`\n]*`)|(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))", re.DOTALL | re.MULTILINE
)
_BADGE = re.compile(r'^<img src="../../raw/badges/[^>]*>$', re.MULTILINE)
"""A picture on a branch of the code host."""
_PICTURES = (".png", ".svg")
_LANGUAGES = {"Makefile": "make", "dockerfile": "docker", "conf": "ini", "jinja": "jinja"}

_sources: dict[str, str] = {}
"""Where the text of a page comes from, seen from the repository."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/."""
    _sources.clear()
    _sources.update({file.src_uri: f"docs/{file.src_uri}" for file in files.documentation_pages()})
    files.remove(files.src_uris["index.md"])
    for source, page in _RENAMED.items():
        _add(files, config, page, _text(source), source)
    waiting = list(_sources.values())
    while waiting:
        for target in _outside(waiting.pop()):
            page = site_page(target)
            if page not in _sources:
                if page.endswith(_PICTURES):
                    _sources[page] = target
                    files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / target)))
                    continue
                _add(files, config, page, _shown(target), target)
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs names them
    """Turn links between files of the repository into links between pages of the site; add what the code says."""
    here = page.file.src_uri
    source = _sources[here]

    def turned(found: re.Match[str]) -> str:
        code, link, anchor = found.groups()
        if code or _is_address(link):
            return found.group()
        return posixpath.relpath(site_page(_target(source, link)), posixpath.dirname(here) or ".") + (anchor or "")

    markdown = _CODE_OR_LINK.sub(turned, _BADGE.sub("", markdown))
    for comment in filter(markdown.__contains__, _GENERATED):
        markdown = markdown.replace(comment, _GENERATED[comment]())
    return markdown


def site_page(path: str) -> str:
    """The page, or file, of the site that stands for a file of the repository."""
    if path in _RENAMED:
        return _RENAMED[path]
    if path.startswith("docs/"):
        return _RENAMED["docs/index.md"] if (REPOSITORY / path).is_dir() else path.removeprefix("docs/")
    shown = re.sub(r"(^|/)\.", r"\1", path)  # MkDocs leaves hidden files out
    return f"repository/{shown}" if path.endswith((".md", *_PICTURES)) else f"repository/{shown}.md"


def _outside(source: str) -> Iterator[str]:
    """Files of the repository that a page links to and that are no part of docs/."""
    if not source.endswith(".md"):
        return
    for _, link, _ in _CODE_OR_LINK.findall(_text(source)):
        if link and not _is_address(link):
            target = _target(source, link)
            if not target.startswith("docs/") and target not in _RENAMED and (REPOSITORY / target).exists():
                yield target


def _shown(path: str) -> str:
    """A Markdown file as it is; any other as a listing, a folder as the names in it."""
    if path.endswith(".md"):
        return _text(path)
    if (REPOSITORY / path).is_dir():
        names = sorted(f"{one.name}{'/' * one.is_dir()}" for one in (REPOSITORY / path).iterdir())
        return f"# {path}\n\n" + "".join(f"- `{name}`\n" for name in names if name != "__pycache__/")
    name = path.rpartition("/")[2]
    language = _LANGUAGES.get(name.rpartition(".")[2], name.rpartition(".")[2] if "." in name else "text")
    return f"# {path}\n\n~~~~{language}\n{_text(path)}~~~~\n"


def _target(source: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _is_address(link: str) -> bool:
    return re.match(r"[a-z]+:", link) is not None


def _text(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def _add(files: Files, config: MkDocsConfig, page: str, text: str, source: str) -> None:
    _sources[page] = source
    files.append(File.generated(config, page, content=text))
