"""Drift as a page of Evidently, for those who read its reports anyway."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from enzyme_stability.errors import ArtifactError, DataError, MissingDependencyError
from enzyme_stability.monitoring.drift import SIGNIFICANCE
from enzyme_stability.reference import MINIMUM_PROTEINS, Reference

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_SAMPLE = 1000  # of more, the test would find out that values do not lie evenly within a bin


def write_evidently(
    reference: Reference, rows: pd.DataFrame, path: Path, *, significance: float = SIGNIFICANCE
) -> None:
    """Write the drift report of Evidently as HTML: two histograms of each quantity and a Kolmogorov-Smirnov test.

    Evidently compares two samples, and a reference keeps histograms only. So the sample that it shows as the reference
    is made up: as many values as the reference has proteins (1,000 at most), in the bins by their shares and evenly
    within them, each quantity on its own and the same every time. Its histograms are those of the reference, its rows
    are no proteins. The test is corrected by Bonferroni's method for the number of quantities. It does not ask how far
    a quantity has moved, so among thousands of proteins it also calls what ``drift`` holds for a trifle.

    Args:
        reference: The predictor's own, or of a quiet time of one's own log.
        rows: As ``monitoring.history.logged`` gives them.
        path: Of the HTML file, replaced where it exists.
        significance: Chance of a false alarm over all quantities.

    Raises:
        MissingDependencyError: Evidently is not installed.
        DataError: No quantity has enough proteins, or a column is missing.
        ArtifactError: The file cannot be written.
    """
    try:
        from evidently import Report
        from evidently.presets import DataDriftPreset
    except ImportError:
        raise MissingDependencyError("The Evidently report", "evidently") from None
    import pandas as pd

    values = {name: found for name, found in reference.values(rows).items() if found.size >= MINIMUM_PROTEINS}
    if not values:
        raise DataError(f"a drift report needs at least {MINIMUM_PROTEINS} distinct proteins: take a longer time")
    shuffle = np.random.default_rng(0).permutation  # ascending columns would look as if they were related
    drawn = {
        name: shuffle(kept.sample(min(kept.n, _LARGEST_SAMPLE)))
        for name, kept in reference.quantities.items()
        if name in values
    }
    current, expected = (
        pd.DataFrame({name: pd.Series(column) for name, column in columns.items()}) for columns in (values, drawn)
    )
    one, threshold = 1 / len(values), significance / len(values)
    report = Report([DataDriftPreset(num_method="ks", num_threshold=threshold, drift_share=one)])
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("w", encoding="utf-8") as file:  # before the report, which takes seconds
            file.write(report.run(current, expected).get_html_str(as_iframe=False))
        unfinished.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write to {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
