"""The name under which a sequence is known in the database without being kept there."""

from __future__ import annotations

import hashlib


def sequence_hash(residues: str) -> str:
    """SHA-256 of a cleaned sequence, 64 hexadecimal digits.

    Args:
        residues: As in ``clean_sequence(...).residues``, so that the same protein has the same name however it is
            written.
    """
    return hashlib.sha256(residues.encode("ascii")).hexdigest()
