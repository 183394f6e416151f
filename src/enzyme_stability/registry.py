"""A shelf of predictors in a folder or bucket: numbered versions, and aliases such as ``production`` that name one.

Below the address of the registry, for each predictor::

    NAME/VERSION/            the predictor, as 'push' leaves it
    NAME/versions/VERSION.json   when it was added, and its SHA-256
    NAME/aliases/ALIAS.json  the version it names, and those before
    NAME/benchmark/          tables that a version is judged on, and the terms
    NAME/promotions/         the verdict of each attempt to promote
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from enzyme_stability.errors import ArtifactError, ConfigError
from enzyme_stability.storage import create_file, file_names, is_url, read_file, write_file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]*")
_VERSION = re.compile(r"[1-9][0-9]*")
_ADDRESS = re.compile(r"(?P<registry>.+)[/\\](?P<name>[^/\\@]+)@(?P<which>[^/\\@]+)")
_KEPT_HISTORY = 100

T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """A predictor in the registry.

    Attributes:
        number: 1 for the first of its name.
        sha256: Of its manifest.
        added_at: ISO 8601, UTC.
        note: What whoever added it had to say.
    """

    number: int
    sha256: str
    added_at: str
    note: str = ""


@dataclass(frozen=True)
class Alias:
    """A name for one version at a time.

    Attributes:
        version: The one that it names.
        sha256: Of that version's manifest.
        since: ISO 8601, UTC.
        before: Versions it named before, the newest last.
    """

    version: int
    sha256: str
    since: str
    before: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Address:
    """What ``registry/NAME@WHICH`` stands for.

    Attributes:
        registry: Where it is.
        name: Of the predictor.
        which: Number of a version, or an alias.
    """

    registry: Registry
    name: str
    which: str

    @classmethod
    def parse(cls, text: str | Path) -> Self | None:
        """The address in a registry that a text is; None where it is another one, or a name.

        A path that is there is a path, and what follows @ on a model hub is a revision.
        """
        found = _ADDRESS.fullmatch(str(text))
        if found is None or str(text).startswith("hf://") or (not is_url(str(text)) and Path(text).exists()):
            return None
        return cls(Registry(found["registry"]), found["name"], found["which"])

    def version(self) -> int:
        """The version that is meant now.

        Raises:
            ArtifactError: There is none, or as ``read_file``.
        """
        if _VERSION.fullmatch(self.which):
            return int(self.which)
        alias = self.registry.alias(self.name, self.which)
        if alias is None:
            raise ArtifactError(f"{self.registry.url} has no {self.name}@{self.which}: promote a version to it")
        return alias.version

    def digest(self) -> str:
        """SHA-256 of the manifest of the version that is meant now.

        Raises:
            ArtifactError: There is no such version, or as ``read_file``.
        """
        return self.registry.version(self.name, self.version()).sha256

    def url(self) -> str:
        """Address of the version that is meant now.

        Raises:
            ArtifactError: There is none, or as ``read_file``.
        """
        return self.registry.place(self.name, self.version())


class Registry:
    """A registry of predictors.

    Args:
        url: Folder, or any address such as gs://bucket/registry.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url).rstrip("/\\")

    def names(self) -> list[str]:
        """Names of the predictors."""
        parts = (name.split("/") for name in file_names(self.url))
        return sorted({first for first, *rest in parts if rest[:1] == ["versions"]})

    def versions(self, name: str) -> list[Version]:
        """All versions of a predictor, the oldest first.

        Raises:
            ArtifactError: A record is damaged, or as ``read_file``.
        """
        numbers = (Path(file).stem for file in file_names(f"{self._folder(name)}/versions"))
        return [self.version(name, number) for number in sorted(map(int, filter(_VERSION.fullmatch, numbers)))]

    def version(self, name: str, number: int) -> Version:
        """One version.

        Raises:
            ArtifactError: There is none, its record is damaged, or as ``read_file``.
        """
        address = f"{self._folder(name)}/versions/{number}.json"
        values = _read(address)
        if values is None:
            raise ArtifactError(f"{self.url} has no version {number} of {name}: see 'enzyme-stability registry list'")
        return _made(Version, values, address)

    def add(self, name: str, sha256: str, note: str = "") -> Version:
        """Take the next number for a predictor; its files are put at ``place`` afterwards.

        A predictor that has a number already keeps it.
        """
        there = self.versions(name)
        for version in there:
            if version.sha256 == sha256:
                return version
        number = there[-1].number + 1 if there else 1
        while True:  # another one may add a version at the same time
            version = Version(number, sha256, _now(), note)
            if create_file(f"{self._folder(name)}/versions/{number}.json", _json(asdict(version))):
                return version
            number += 1

    def place(self, name: str, number: int) -> str:
        """Address of the files of a version."""
        return f"{self._folder(name)}/{number}"

    def alias(self, name: str, alias: str) -> Alias | None:
        """What an alias names, None where it names nothing yet.

        Raises:
            ConfigError: It cannot be an alias.
            ArtifactError: Its record is damaged, or as ``read_file``.
        """
        address = self._alias_file(name, alias)
        values = _read(address)
        return None if values is None else _made(Alias, values, address)

    def aliases(self, name: str) -> dict[str, Alias]:
        """All aliases of a predictor."""
        found = (Path(file).stem for file in file_names(f"{self._folder(name)}/aliases"))
        named = {alias: self.alias(name, alias) for alias in found}
        return {alias: one for alias, one in named.items() if one is not None}

    def point(self, name: str, alias: str, number: int) -> Alias:
        """Let an alias name a version.

        Raises:
            ConfigError: It cannot be an alias.
            ArtifactError: There is no such version, or as ``write_file``.
        """
        before = self.alias(name, alias)
        if before is not None and before.version == number:
            return before
        history = [] if before is None else [*before.before, before.version][-_KEPT_HISTORY:]
        return self._write_alias(name, alias, number, history)

    def roll_back(self, name: str, alias: str) -> Alias:
        """Let an alias name the version that it named before.

        Raises:
            ArtifactError: There is none before, or as ``write_file``.
        """
        now = self.alias(name, alias)
        if now is None or not now.before:
            raise ArtifactError(f"{name}@{alias} has named no other version before, so there is none to go back to")
        return self._write_alias(name, alias, now.before[-1], now.before[:-1])

    def benchmark(self, name: str) -> str:
        """Address of the tables that versions of a predictor are judged on."""
        return f"{self._folder(name)}/benchmark"

    def record(self, name: str, verdict: dict[str, Any]) -> str:
        """Keep the verdict on an attempt to promote; returns its address."""
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        address = f"{self._folder(name)}/promotions/{moment}.json"
        write_file(address, _json(verdict))
        return address

    def _write_alias(self, name: str, alias: str, number: int, before: list[int]) -> Alias:
        made = Alias(number, self.version(name, number).sha256, _now(), before)
        write_file(self._alias_file(name, alias), _json(asdict(made)))
        return made

    def _alias_file(self, name: str, alias: str) -> str:
        if not _ALIAS.fullmatch(alias):
            raise ConfigError(f"{alias!r} cannot be an alias: use small letters and digits, as in production")
        return f"{self._folder(name)}/aliases/{alias}.json"

    def _folder(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} cannot be the name of a predictor: use letters, digits, '_', '.' and '-'")
        return f"{self.url}/{name}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def _read(address: str) -> dict[str, Any] | None:
    content = read_file(address)
    if content is None:
        return None
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ArtifactError(f"{address} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise ArtifactError(f"{address} is damaged: it is no record")
    return values


def _made(kind: type[T], values: dict[str, Any], address: str) -> T:
    try:
        return kind(**values)
    except TypeError as error:
        raise ArtifactError(f"{address} is damaged: {error}") from None
