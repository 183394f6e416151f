"""Fails unless a report of pip-audit covers every pin: audit.py CONSTRAINTS REPORT.

Where its service does not answer, pip-audit skips the packages, says that no vulnerability is known and exits with 0.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def unaudited(constraints: str, report: str) -> list[str]:
    """Pins that the report, as JSON, does not say to have been looked up in this version."""
    pins = dict(re.findall(r"^([^#\s=]+)==([^\s;]+)", constraints, re.M))
    if not pins:
        raise SystemExit("there is no pin to audit; write name==version lines")
    looked_up = {
        (_normal(found["name"]), found["version"])
        for found in json.loads(report)["dependencies"]
        if "vulns" in found and "skip_reason" not in found
    }
    return [f"{name}=={version}" for name, version in pins.items() if (_normal(name), version) not in looked_up]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    constraints, report = (Path(path).read_text(encoding="utf-8") for path in sys.argv[1:])
    if missing := unaudited(constraints, report):
        raise SystemExit(f"{len(missing)} pinned packages were not audited, run it again: {', '.join(missing)}")
    print("every pinned package was audited")
