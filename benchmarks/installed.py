"""Megabytes that the base install takes, for speed.py: this package and everything it needs, extras left out."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from reporting import ROOT


def install_size() -> dict[str, Any]:
    """Megabytes of the installed files of this package and of everything it needs, extras left out."""
    megabytes = {name: _installed_bytes(name) / 1e6 for name in sorted(_closure("enzyme-stability"))}
    return {"total_mb": sum(megabytes.values()), "distributions_mb": megabytes}


def _closure(name: str) -> set[str]:
    """A distribution and all it needs on this system, by normalised name."""
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    seen = set(waiting)
    while waiting:
        current, extras = waiting.pop()
        try:
            needed = distribution(current).requires or []
        except PackageNotFoundError:  # needed elsewhere, as on another system, or replaced
            continue
        found.add(current)
        for requirement in map(Requirement, needed):
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                continue
            step = (requirement.name.lower().replace("_", "-"), frozenset(requirement.extras))
            if step not in seen:
                seen.add(step)
                waiting.append(step)
    return found


def _installed_bytes(name: str) -> int:
    files = [Path(str(file.locate())) for file in distribution(name).files or []]
    if name == "enzyme-stability":  # an editable install lists a pointer, not the files
        package = ROOT / "src" / "enzyme_stability"
        files = [file for file in package.rglob("*") if "__pycache__" not in file.parts]
    return sum(file.stat().st_size for file in files if file.is_file())
