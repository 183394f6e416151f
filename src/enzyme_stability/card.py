"""The model card: what a trained predictor is, how good it is and where it must not be used.

Every figure comes from the dictionaries given; ``templates/card.md.j2`` holds words only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from enzyme_stability.metrics import CONFIDENCE, HOT_CELSIUS

_ABSENT = "-"
_SETTINGS_SHOWN = ("encoder", "head", "domain", "seed")  # the others are paths


def render_card(
    training: Mapping[str, Any],
    *,
    cross_validation: Mapping[str, Any] | None = None,
    tests: Sequence[Mapping[str, Any]] = (),
    purified: Sequence[Mapping[str, Any]] = (),
    artefact_bytes: int | None = None,
    calibration_proteins: int | None = None,
) -> str:
    """Write the model card of a predictor as Markdown.

    A section whose input is missing is left out.

    Args:
        training: ``name`` and ``description`` of the predictor; where known ``config`` (``TrainConfig`` as a
            dictionary), ``train_proteins``, ``with_growth_temperature`` (how many of the proteins have one),
            ``tm_celsius`` (``minimum`` and ``maximum`` of the training table) and ``data`` (its ``Prepared.summary``).
        cross_validation: ``Evaluation.to_dict()`` over the homology-held-out folds.
        tests: The same of each test table. Of ``source`` the card shows ``description``.
        purified: The same of each table of purified enzymes, whose label is another quantity than a Tm from
            proteome-wide melting: ``source["label"]`` names it.
        artefact_bytes: Size of the saved predictor.
        calibration_proteins: Proteins the intervals were calibrated on.

    Raises:
        KeyError: ``training`` has no ``name`` or no ``description``.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("enzyme_stability"),
        autoescape=jinja2.select_autoescape(),  # HTML and XML by suffix, so not Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        figure=_figure, number=_number, share=_share, count=_count, cell=_cell, words=_words, megabytes=_megabytes
    )
    config = training.get("config", {})
    settings = {key: config[key] for key in _SETTINGS_SHOWN if key in config}
    text = environment.get_template("card.md.j2").render(
        name=training["name"],
        description=training["description"],
        data=training.get("data", {}),
        train_proteins=training.get("train_proteins"),
        calibration_proteins=calibration_proteins,
        artefact_bytes=artefact_bytes,
        with_growth_temperature=training.get("with_growth_temperature"),
        tm_range=[training["tm_celsius"][bound] for bound in ("minimum", "maximum")]
        if "tm_celsius" in training
        else None,
        settings=json.dumps(settings, indent=2) if settings else None,
        cross_validation=cross_validation,
        tests=tests,
        purified=purified,
        melting=[*([cross_validation] if cross_validation else []), *tests],
        confidence=CONFIDENCE,
        hot=HOT_CELSIUS,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _figure(figure: Mapping[str, float] | None, digits: int, sign: str = "") -> str:
    if figure is None:
        return _ABSENT
    value, low, high = (f"{figure[key]:{sign}.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _number(value: float | None, digits: int = 0) -> str:
    return _ABSENT if value is None else f"{value:.{digits}f}"


def _share(value: float | Mapping[str, float] | None, digits: int = 0) -> str:
    if value is None:
        return _ABSENT
    if isinstance(value, Mapping):
        shares = (f"{100 * value[key]:.{digits}f}" for key in ("value", "low", "high"))
        return "{} % ({} to {})".format(*shares)
    return f"{100 * value:.{digits}f} %"


def _count(value: int | None) -> str:
    return _ABSENT if value is None else f"{value:,}"


def _cell(text: object) -> str:
    """Text that cannot break out of a cell of a Markdown table."""
    return " ".join(str(text or _ABSENT).split()).replace("|", r"\|")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
