"""Files and folders at any fsspec URL: fetched once, put whole and checked, copied along while a run goes on."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.request import url2pathname

from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError
from enzyme_stability.remote import (
    Listing,
    connect,
    download,
    explained,
    find_file,
    list_files,
    relative_names,
    retried,
    upload,
)

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # at least two characters: C:// is a drive
_LAST = "predictor.json"  # a folder is no predictor without it
_UNFINISHED = (".part", ".tmp")


def is_url(path: str | Path) -> bool:
    """Whether this is an address such as gs://bucket/folder. A ``Path`` never is: it would have lost a slash."""
    return isinstance(path, str) and _URL.match(path) is not None


def fetch(url: str | Path, folder: Path | None = None) -> Path:
    """A local copy of a file or folder, transferred only where it is new or has changed.

    Args:
        url: Address of a file or folder. A local path and a file:// address need no copy.
        folder: Where copies are kept; ``$ENZYME_STABILITY_DOWNLOADS``, else ``~/.cache/enzyme-stability/downloads``.

    Returns:
        The copy, named like the last part of the address. Others use it too: do not write to it.

    Raises:
        ArtifactError: Nothing is there, access is refused, the transfer fails or the copy cannot be written.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    if (local := local_path(url)) is not None:
        return local
    fs, root = _open(url)
    with explained(url):
        listing = list_files(fs, root)
        kept = (folder or _downloads()) / _version(str(url), listing)
        copy = kept / (re.sub(r"[^\w.@-]", "_", PurePosixPath(root).name).strip(".") or "files")
        if copy.exists():
            return copy
        with _beside(kept) as part:
            for name, relative in relative_names(listing, root).items():
                download(fs, name, listing[name], part / copy.name / relative)
            if list_files(fs, root) != listing:
                raise ArtifactError(f"{url} was changed while it was read; try again")
            try:
                part.rename(kept)
            except OSError:
                if not copy.exists():  # else another process was faster with the same files
                    raise
    return copy


def put_file(path: Path, url: str | Path) -> None:
    """Copy a file to an address; a reader sees the old file or the new one, and the copy is compared with the file.

    Raises:
        ArtifactError: The file cannot be read or written, or the copy differs after several tries.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    if (target := local_path(url)) is not None:
        with explained(target):
            _put_here(path, target)
        return
    fs, root = _open(url)
    with explained(url):
        find_file(fs, root)  # tells within seconds whether anyone answers
        upload(fs, path, root)


def read_file(url: str | Path) -> bytes | None:
    """What a small file holds, None where there is none.

    Raises:
        ArtifactError: Nobody answers, access is refused or the file cannot be read.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    with explained(url):
        if (path := local_path(url)) is not None:
            return path.read_bytes() if path.is_file() else None
        fs, root = _open(url)
        if find_file(fs, root) is None:
            return None
        content: bytes = fs.cat_file(root)
        return content


def write_file(url: str | Path, content: bytes) -> None:
    """Write a small file in one step: a reader sees what was there before or all of this.

    Raises:
        ArtifactError: Nobody answers, access is refused or the file cannot be written.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    with explained(url):
        if (path := local_path(url)) is None:
            fs, root = _open(url)
            retried(lambda: fs.pipe_file(root, content))
            return
        with _beside(path) as part:
            (part / path.name).write_bytes(content)
            (part / path.name).replace(path)


def create_file(url: str | Path, content: bytes) -> bool:
    """Write a small file where there is none yet; of two that try at once, one is told False.

    Raises:
        ArtifactError: Nobody answers, access is refused or the file cannot be written.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    with explained(url):
        try:
            if (path := local_path(url)) is not None:
                with _beside(path) as part:
                    (part / path.name).write_bytes(content)
                    os.link(part / path.name, path)
            else:
                fs, root = _open(url)
                if find_file(fs, root) is not None:
                    return False
                fs.pipe_file(root, content, mode="create")
        except FileExistsError:
            return False
    return True


def file_names(url: str | Path) -> list[str]:
    """Names of all files below a folder, relative to it; none where there is no such folder.

    Raises:
        ArtifactError: Nobody answers, access is refused or a name leads out of the folder.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    if (path := local_path(url)) is not None:
        with explained(url):
            # Walked, for others may write here and what is listed may be gone a moment later.
            found = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
            relative = (file.relative_to(path).as_posix() for file in found)
            return sorted(name for name in relative if _is_finished(name))
    fs, root = _open(url)
    with explained(url):
        try:
            listing = list_files(fs, root)
        except FileNotFoundError:
            return []
        return sorted(str(relative) for relative in relative_names(listing, root).values())


def put_folder(folder: Path, url: str | Path) -> None:
    """Copy a folder to an address so that a reader never takes half of it for the whole.

    At a remote address the manifest of a predictor is removed first and written last; files there that the folder does
    not have stay. A local folder is replaced, in one step, when its copy is complete.

    Raises:
        ArtifactError: The folder is empty, a file cannot be read or written, or a copy differs after several tries.
            A local folder that holds other files than the new one, and is no predictor, is not replaced.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    names = _files(folder)
    if not names:
        raise ArtifactError(f"{folder} is not a folder with files in it")
    if (target := local_path(url)) is not None:
        _replace_folder(folder, names, target)
        return
    fs, root = _open(url)
    with explained(url):
        manifest = f"{root}/{_LAST}"
        if find_file(fs, manifest) and _LAST in names:
            retried(lambda: fs.rm_file(manifest))
        for name in names:
            upload(fs, folder / name, f"{root}/{name}")


def mirror(folder: Path, url: str | Path, report: Callable[[str], None] | None = None) -> Mirror:
    """Keep a copy of a growing folder at an address; see ``Mirror``.

    Args:
        folder: The folder of a run; it may be empty so far.
        url: Address of the copy, for this run alone.
        report: Takes the sentence about a failed ``sync``; without one it is logged as a warning.

    Raises:
        ConfigError: The kind of address is unknown, or the copy would lie in the folder itself.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    return Mirror(folder, url, report or logging.getLogger(__name__).warning)


class Mirror:
    """The copy of a run's folder, from which the run can be continued on another machine.

    Args:
        folder: The folder of the run.
        url: Address of the copy.
        report: Takes the sentence about a failed ``sync``.
    """

    def __init__(self, folder: Path, url: str | Path, report: Callable[[str], None]) -> None:
        self._here = local_path(url)
        if self._here is not None and self._here.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{url} lies in {folder} itself; choose another address for the copy")
        _open(url)  # what can never work is said before the run, not after its first hours
        self._folder = folder
        self._url = url
        self._report = report
        self._copied: dict[str, tuple[int, int]] = {}

    def sync(self) -> bool:
        """Copy what has changed since the last time; a failure is reported and made good at the next one.

        Returns:
            Whether the copy is complete.
        """
        try:
            self._copy_changes()
        except EnzymeStabilityError as error:
            self._report(f"the copy of {self._folder} is behind and will be made good at the next try: {error}")
            return False
        return True

    def close(self) -> None:
        """Copy what is left.

        Raises:
            ArtifactError: The copy is not complete.
        """
        self._copy_changes()

    @staticmethod
    def restore(url: str | Path, folder: Path) -> int:
        """Bring the files of a copy back; a file that was written here after it was copied is kept.

        Returns:
            Number of files brought back: 0 where there is no copy yet.

        Raises:
            ArtifactError: The address does not answer, a transfer fails or a file cannot be written.
        """
        fs, root = _open(url)
        with explained(url):
            try:
                listing = list_files(fs, root)
            except FileNotFoundError:
                return 0
            brought = 0
            for name, relative in relative_names(listing, root).items():
                target = folder / relative
                if target.exists() and target.stat().st_mtime > fs.modified(name).timestamp():
                    continue
                with _beside(target) as part:
                    download(fs, name, listing[name], part / target.name)
                    (part / target.name).replace(target)
                brought += 1
        return brought

    def _copy_changes(self) -> None:
        fs, root = _open(self._url)
        with explained(self._url):
            if not self._folder.is_dir():  # gone as a whole: no reason to empty the copy as well
                raise ArtifactError(f"{self._folder} is not there")
            now = {name: _stamp(self._folder / name) for name in _files(self._folder) if _is_finished(name)}
            changed = [name for name, stamp in now.items() if self._copied.get(name) != stamp]
            gone = [name for name in self._copied if name not in now]
            if changed or gone:
                find_file(fs, f"{root}/{_LAST}")  # tells within seconds whether anyone answers
            # In the order of writing, so that a file which names another one follows it.
            for name in sorted(changed, key=lambda name: (name == _LAST, now[name][1])):
                if self._here is not None:
                    _put_here(self._folder / name, self._here / name)
                else:
                    upload(fs, self._folder / name, f"{root}/{name}")
                self._copied[name] = now[name]  # as before the transfer: a change during it counts as a new one
            for name in gone:
                if find_file(fs, f"{root}/{name}"):
                    retried(partial(fs.rm_file, f"{root}/{name}"))
                del self._copied[name]


def local_path(url: str | Path) -> Path | None:
    """The path where ``url`` is a local path or a file:// address, else None."""
    if not is_url(url):
        return Path(url)
    protocol, _, rest = str(url).partition("://")
    return Path(url2pathname(rest)) if protocol.lower() in {"file", "local"} else None


def _open(url: str | Path) -> tuple[Any, str]:
    local = local_path(url)
    return connect(str(url) if local is None else f"file://{local.absolute().as_posix()}")


def _put_here(path: Path, target: Path) -> None:
    with _beside(target) as part:
        shutil.copyfile(path, part / target.name)
        (part / target.name).replace(target)


def _replace_folder(folder: Path, names: list[str], target: Path) -> None:
    with explained(target):
        target = target.resolve()
        if target != folder.resolve() and target.is_relative_to(folder.resolve()):
            raise ArtifactError(f"{target} lies in {folder} itself; choose another folder")
        if target.is_file():
            raise ArtifactError(f"{target} is a file; give the name of a folder")
        lost = set(_files(target)) - set(names)
        if lost and (not (target / _LAST).is_file() or any("/" in name for name in lost)):
            raise ArtifactError(f"{target} holds other files, such as {min(lost)}; choose another name, or delete it")
        with _beside(target) as part:
            for name in names:
                (part / "new" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, part / "new" / name)
            if target.exists():
                target.rename(part / "old")
            try:
                (part / "new").rename(target)
            except BaseException:
                if (part / "old").exists():
                    (part / "old").rename(target)
                raise


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder on the disk of ``target`` for what is not complete yet; gone at the end."""
    part = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _files(folder: Path) -> list[str]:
    """Names of all files below, the one that makes the folder a predictor at the end."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(names, key=lambda name: name == _LAST)


def _is_finished(name: str) -> bool:
    return not any(part.endswith(_UNFINISHED) for part in PurePosixPath(name).parts)


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _version(url: str, listing: Listing) -> str:
    """Differs where the address or anything its file system says of a file does: checksum, generation, size, time."""
    facts = sorted((name, sorted(info.items(), key=str)) for name, info in listing.items())
    return hashlib.sha256(repr((url, facts)).encode()).hexdigest()[:32]


def _downloads() -> Path:
    named = os.environ.get("ENZYME_STABILITY_DOWNLOADS")
    return Path(named) if named else Path.home() / ".cache" / "enzyme-stability" / "downloads"
