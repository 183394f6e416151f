"""A command as text, to be copied into the shell of this system."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable


def command_line(words: Iterable[str]) -> str:
    """Join the words of a command; those with blanks in quotes that the system's shell understands."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
