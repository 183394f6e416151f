"""The commands 'models ...': fetch, list, check and delete local copies of protein language models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from enzyme_stability.cli.common import say

if TYPE_CHECKING:
    from enzyme_stability.encoders.checkpoints import InstalledCheckpoint

models = typer.Typer(no_args_is_help=True, help="Fetch and check pretrained protein language models.")

Name = Annotated[str, typer.Argument(help="Name of a model, as 'models list' shows it.")]


@models.command()
def pull(
    name: Annotated[str, typer.Argument(help="A name from 'models list', or owner/name on the Hugging Face hub.")],
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch; else the known commit, or main the first time.")
    ] = None,
) -> None:
    """Fetch a model once; predictions and training then need no network."""
    from enzyme_stability.encoders import checkpoints

    folder = checkpoints.pull(name, revision=revision, report=say)
    say(f"{name} is in {folder}, fingerprint {checkpoints.fingerprint(folder)[:12]}")


@models.command(name="list")
def list_() -> None:
    """List the known models and those on this machine."""
    from enzyme_stability.encoders.checkpoints import KNOWN_CHECKPOINTS, installed

    here = {}
    for entry in sorted(installed(), key=lambda entry: entry.intact):  # an intact copy counts before a half one
        here[entry.name] = entry
    rows = [("name", "repository", "parameters", "download", "licence", "installed")]
    for known in KNOWN_CHECKPOINTS.values():
        count, size = f"{known.parameters / 1e6:.0f}M", _size(known.download_bytes)
        rows.append((known.name, known.repository, count, size, known.licence, _state(here.pop(known.name, None))))
    for entry in here.values():
        rows.append((entry.name, entry.repository or "-", "-", "-", "-", _state(entry)))
    for line in _aligned(rows):
        print(line)


@models.command()
def verify(name: Name) -> None:
    """Read every file of a model again and compare it with its checksum."""
    from enzyme_stability.encoders import checkpoints

    folder = checkpoints.find_checkpoint(name)
    checkpoints.verify(folder)
    say(f"{name} is intact, fingerprint {checkpoints.fingerprint(folder)[:12]}")


@models.command()
def remove(name: Name) -> None:
    """Delete the local copy of a model."""
    from enzyme_stability.encoders import checkpoints

    checkpoints.remove(name)
    say(f"deleted {name}")


def _state(entry: InstalledCheckpoint | None) -> str:
    if entry is None:
        return "-"
    return _size(entry.bytes) if entry.intact else "incomplete"


def _size(count: int) -> str:
    return f"{count / 1e9:.3g}GB" if count >= 1e9 else f"{count / 1e6:.3g}MB"


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Lines with columns of equal width. Where a value is missing stands a dash, so that columns can be counted."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
