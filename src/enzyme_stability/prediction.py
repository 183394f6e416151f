"""One row of the answer."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of the answer. Temperatures in degC, rounded to 0.01; None where there is no answer.

    Attributes:
        id: Name of the record.
        length: Residues in the chain, the non-standard ones included.
        tm_celsius: Melting temperature.
        tm_lower_celsius: Lower end of the interval.
        tm_upper_celsius: Upper end of the interval.
        in_domain: Whether the protein is like those the predictor learned from.
        status: ``ok``; ``warning`` where the sequence was changed by the residue policy; ``error`` where there is no
            answer.
        note: What was changed, why the protein is out of domain, or what was wrong.
        similarity: Kernel similarity to the nearest protein learned from, 0..1; not among the columns of the answer.
    """

    id: str
    length: int | None
    tm_celsius: float | None
    tm_lower_celsius: float | None
    tm_upper_celsius: float | None
    in_domain: bool | None
    status: str
    note: str
    similarity: float | None = field(default=None, compare=False)


COLUMNS: dict[str, type] = {
    "id": str,
    "length": int,
    "tm_celsius": float,
    "tm_lower_celsius": float,
    "tm_upper_celsius": float,
    "in_domain": bool,
    "status": str,
    "note": str,
}
