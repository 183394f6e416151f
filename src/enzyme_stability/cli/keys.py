"""The commands 'keys ...': make, list and revoke the API keys of the HTTP service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enzyme_stability.cli.common import say

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys of the HTTP service.")

File = Annotated[Path, typer.Option("--file", help="File of the hashed keys, as 'serve --keys' takes it.")]
Name = Annotated[str, typer.Argument(help="Who the key is for: letters, digits and . _ @ -")]


@keys.command()
def create(
    name: Name,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Requests that the key allows; without it there is no limit.")
    ] = None,
    file: File = Path("keys.json"),
) -> None:
    """Make a key and print it, this once: the file holds its hash only."""
    from enzyme_stability.serving.access import create_key

    print(create_key(file, name, requests_per_minute))
    say(f"the key of {name} is in {file} as a hash; it cannot be shown again")


@keys.command(name="list")
def list_(file: File = Path("keys.json")) -> None:
    """List the names, limits and days of all keys."""
    from enzyme_stability.serving.access import read_keys

    print("name\tcreated\trequests_per_minute\trevoked")
    for key in read_keys(file):
        print(key.name, key.created, key.requests_per_minute or "-", key.revoked or "-", sep="\t")


@keys.command()
def revoke(name: Name, file: File = Path("keys.json")) -> None:
    """Take a key back; a running service refuses it from its next request on."""
    from enzyme_stability.serving.access import revoke_key

    revoke_key(file, name)
    say(f"the key of {name} is revoked")
