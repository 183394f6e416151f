"""What is asked of the Hugging Face hub, and what its refusals mean to a user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enzyme_stability.encoders.checkpoint_files import CONFIG
from enzyme_stability.encoders.known_checkpoints import did_you_mean
from enzyme_stability.errors import ArtifactError, MissingDependencyError


def look_up(repository: str, revision: str, *, by_hand: Path) -> tuple[str, dict[str, tuple[int | None, str | None]]]:
    """What a repository holds.

    Args:
        repository: ``owner/name``.
        revision: Commit, tag or branch.
        by_hand: Where the message of a failure tells the user to put the files.

    Returns:
        The commit, and by name of file its size and, for a large one, its SHA-256.

    Raises:
        ArtifactError: The hub cannot be reached, or has no such repository or revision for this user.
        MissingDependencyError: The ``plm`` extra is not installed.
    """
    with _hub(repository, revision, by_hand) as hub:
        info = hub.HfApi(endpoint=_endpoint()).repo_info(repository, revision=revision, files_metadata=True)
        files = {file.rfilename: (file.size, file.lfs.sha256 if file.lfs else None) for file in info.siblings or []}
        return str(info.sha), files


def download(repository: str, commit: str, files: Sequence[str], folder: Path, *, by_hand: Path) -> None:
    """Fetch files into a folder; what a broken download left there is gone on from.

    Raises:
        ArtifactError: As for ``look_up``.
        OSError: The folder cannot be written.
    """
    with _hub(repository, commit, by_hand, writes=True) as hub:
        hub.snapshot_download(
            repository, revision=commit, local_dir=folder, allow_patterns=list(files), endpoint=_endpoint()
        )


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def _hub(repository: str, revision: str, by_hand: Path, *, writes: bool = False) -> Iterator[Any]:
    """The client of the hub; what goes wrong in it becomes one sentence."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise MissingDependencyError("Fetching a protein language model", "plm") from error
    address = re.sub(r"//[^/@]*@", "//", _endpoint() or "https://huggingface.co")  # without a password
    copy = f"copy {CONFIG}, the tokenizer files and the weights of {repository} by hand to {by_hand}"
    try:
        yield huggingface_hub
    except errors.GatedRepoError:
        raise ArtifactError(
            f"{repository} asks for consent: accept its terms at {address}/{repository}, then set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ArtifactError(
            f"{address} has no repository {repository}{did_you_mean(repository)}; for a private one set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise ArtifactError(f"{repository} at {address} has no revision {revision}") from None
    except errors.HFValidationError as error:
        raise ArtifactError(f"'{repository}' is no name of a repository: {error}") from None
    except errors.OfflineModeIsEnabled:
        raise ArtifactError(f"HF_HUB_OFFLINE forbids to fetch {repository}; unset it, or {copy}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise ArtifactError(f"{address} answers {status} for {repository}; try again later, or {copy}") from None
    except Exception as error:  # whatever the client's HTTP library has for a line that is down
        if writes and isinstance(error, OSError) and error.errno:
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArtifactError(
            f"cannot fetch {repository} from {address} ({reason}); check the network, set HTTPS_PROXY, "
            f"set HF_ENDPOINT to a mirror, or {copy}"
        ) from error
