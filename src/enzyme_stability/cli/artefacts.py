"""Commands that move predictors: ``push`` and ``pull``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enzyme_stability.cli.common import say


def push(
    model: Annotated[
        str, typer.Argument(help="Built-in predictor ('builtin', 'tm50') or the folder of a trained one.")
    ],
    url: Annotated[str, typer.Argument(help="Where to: gs://bucket/name, s3://, hf://owner/name, or a local folder.")],
) -> None:
    """Copy a predictor to a bucket, a model hub or another folder, with a README about it."""
    from enzyme_stability.artefacts import push as push_predictor

    predictor = push_predictor(model, url)
    say(f"{predictor.name} is at {url} (SHA-256 of its manifest: {predictor.digest[:12]})")


def pull(
    url: Annotated[
        str, typer.Argument(help="Where from: gs://bucket/name, s3://, hf://owner/name, or a local folder.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to make; a predictor that is there is replaced.")],
) -> None:
    """Copy a predictor from a bucket, a model hub or another folder; only a complete one is taken over."""
    from enzyme_stability.artefacts import pull as pull_predictor

    predictor = pull_predictor(url, folder)
    say(f"{predictor.name} is in {folder} (SHA-256 of its manifest: {predictor.digest[:12]})")
