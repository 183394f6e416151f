"""Prints what CHANGELOG.md says of a release: release_notes.py TAG.

Fails where the tag is not the version of the package.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def release_notes(tag: str, repository: Path = REPOSITORY) -> str:
    """The entries of the version that ``tag`` names, such as ``v1.2.0``."""
    source = (repository / "src" / "enzyme_stability" / "__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', source, re.M)
    if tag != f"v{version}":
        raise SystemExit(f"the package is of version {version}: name the tag v{version} or raise the version")
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    entry = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |^\[[^\]]+\]: |\Z)", changelog, re.M | re.S)
    if entry is None or not entry[1].strip():
        raise SystemExit(f"CHANGELOG.md has no entry of {version}; move those under Unreleased there")
    return entry[1].strip()


if __name__ == "__main__":
    print(release_notes(sys.argv[1]))
