"""What is kept of evaluations of a delta-Tm model, and how people read it: in a terminal, and as the model card.

Every figure of the card comes from the model's manifest and the saved evaluations; ``templates/delta_tm_card.md.j2``
holds words only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Literal, Self

import jinja2
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.table import Table

from enzyme_stability.data.variant_tables import PUBLIC_TABLES, Quantity
from enzyme_stability.errors import ArtifactError, DataError
from enzyme_stability.manifest import writing
from enzyme_stability.metrics import CONFIDENCE
from enzyme_stability.variants.baseline import FORMULA
from enzyme_stability.variants.figures import ALL, MINIMUM_PROTEIN
from enzyme_stability.variants.manifest import MANIFEST, PLAIN, WITH_RELATIVES
from enzyme_stability.variants.model import DeltaTmModel
from enzyme_stability.variants.scan import SIGN

KINDS = {PLAIN: "sequence alone", WITH_RELATIVES: "with relatives"}
"""What a model was told of a protein, in words."""

_SOURCE = (
    "MIT as published by GeoStab (github.com/Gonglab-THU/GeoStab), from ProThermDB (doi 10.1093/nar/gkaa1035) and "
    "ThermoMutDB (doi 10.1093/nar/gkaa925)"
)
_SETTINGS = ("auxiliary_weight", "held_out_identity", "largest_change", "folds", "pseudocount", "trees", "seed")
_ABSENT = "-"


class Figure(BaseModel):
    """A figure of merit with its 95 % bounds, which a single protein has not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float | None
    high: float | None

    def text(self, digits: int = 2) -> str:
        """The value, and in brackets its bounds."""
        bounds = "" if self.low is None or self.high is None else f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{self.value:.{digits}f}{bounds}"


class MethodFigures(BaseModel):
    """One method on one group of rows; the figures are those of ``figures.variant_figures``, None where undefined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    kind: Literal["ours", "baseline", "published"]
    needs: str | None
    rows: str
    n: int
    unanswered: int
    proteins: int
    pearson: Figure | None
    spearman: Figure | None
    rmse: Figure | None
    sign_accuracy: Figure | None
    majority_sign: Figure | None
    protein_spearman: Figure | None
    auc: Figure | None
    antisymmetry: Figure | None
    reverse_bias: Figure | None


class VariantEvaluation(BaseModel):
    """How good a model is on one table of measured variants; ready for JSON and for the model card.

    Attributes:
        name: Name of the table.
        description: What it is, for people.
        quantity: What was measured: dTm (degC) or ddG (kcal/mol). Ours are always dTm.
        sign: What a positive number means.
        model: Name of the model.
        digest: ``DeltaTmModel.digest``.
        measurements: Rows that were predicted.
        proteins: Distinct wild types among them.
        relatives_from: File in which relatives were looked for, None without.
        proteins_with_relatives: Proteins that have any there.
        comparison: Ours, the formula and every published method, on all rows, and apart on those of proteins that are
            unrelated to what the model learned from and to each of its tables as published.
        hit_rates: ``figures.hit_rates`` of each of ours, the formula being the baseline.
        reliability: ``figures.reliability`` of each of ours.
        intervals: Of each of ours ``nominal`` and ``observed`` coverage and ``mean_width_celsius``; empty for ddG.
        leakage: ``VariantLeakage.to_dict`` by name of what was learned from.
        notes: What else a reader must know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    name: str
    description: str
    quantity: Quantity
    sign: str = SIGN
    model: str
    digest: str
    measurements: int
    proteins: int
    relatives_from: str | None
    proteins_with_relatives: int
    comparison: list[MethodFigures]
    hit_rates: dict[str, dict[str, Any]]
    reliability: dict[str, dict[str, Any]]
    intervals: dict[str, dict[str, Any]]
    leakage: dict[str, dict[str, Any]]
    notes: list[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what ``evaluate_delta_tm`` wrote.

        Raises:
            DataError: The file cannot be read, or holds something else.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"])) or "the whole"
            raise DataError(f"{path} is no evaluation of a delta-Tm model: {place}: {fault['msg']}") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None

    def groups(self) -> dict[str, list[MethodFigures]]:
        """The comparison by group of rows, the best Pearson correlation first."""
        found: dict[str, list[MethodFigures]] = {}
        for one in self.comparison:
            found.setdefault(one.rows, []).append(one)
        return {rows: sorted(methods, key=_by_pearson) for rows, methods in found.items()}

    def summary(self, width: int = 120) -> str:
        """The figures as text for a terminal of ``width`` columns."""
        text = StringIO()
        console = Console(file=text, width=width)
        console.print(f"{self.name}: {self.description}\n{SIGN}", highlight=False, markup=False)
        for rows, methods in self.groups().items():
            console.print(self._table(rows, methods))
        console.print("\n".join(self._lines()), highlight=False, markup=False)
        return text.getvalue()

    def _table(self, rows: str, methods: list[MethodFigures]) -> Table:
        largest = max(methods, key=lambda one: one.n)
        title = f"{rows}: {largest.n} measurements, {largest.proteins} proteins"
        table = Table(title=title, title_justify="left")
        table.add_column("", overflow="fold")
        error = ["RMSE °C"] if self.quantity == "dTm" else []
        signs, within = "sign (majority)", "within protein"
        for heading in ("needs", "n", "Pearson [95 %]", "Spearman", *error, signs, within, "way back"):
            table.add_column(heading, justify="right")
        for one in methods:
            sign = f"{_number(one.sign_accuracy)} ({_number(one.majority_sign)})"
            cells = [one.needs or one.kind, str(one.n), _ABSENT if one.pearson is None else one.pearson.text()]
            cells += [_number(one.spearman), *([_number(one.rmse, 1)] if error else []), sign]
            cells += [_number(one.protein_spearman), _number(one.antisymmetry)]
            table.add_row(one.method, *cells, style="bold" if one.kind == "ours" else None)
        return table

    def _lines(self) -> list[str]:
        lines = [
            "sign: share of right signs, beside that of always answering the more frequent one; within protein: mean "
            "Spearman correlation of proteins with ten variants or more; way back: Pearson correlation of a prediction "
            f"with that from the variant to the wild type, -1 is perfect; formula: {FORMULA}"
        ]
        for method, one in self.intervals.items():
            observed, width = Figure.model_validate(one["observed"]).text(), one["mean_width_celsius"]
            lines.append(
                f"{method}: intervals hold {observed} (asked for {one['nominal']}), {width:.1f} °C wide on average"
            )
        for method, one in self.reliability.items():
            skill = _ABSENT if one["brier_skill"] is None else f"{one['brier_skill']:.3f}"
            error = one["calibration_error"]
            lines.append(f"{method}: probability of more stable: Brier skill {skill}, calibration error {error:.3f}")
        for method, cuts in self.hit_rates.items():
            for cut, one in cuts.items():
                if one is not None:
                    shares = [f"{one[key]['value']:.2f}" for key in ("hit_rate", "random", "baseline")]
                    lines.append(
                        f"{method}: {shares[0]} of the {cut} are more stable, of all {shares[1]}, "
                        f"of the formula's {shares[2]} ({one['proteins']} protein{'s' * (one['proteins'] != 1)})"
                    )
        for name, one in self.leakage.items():
            near, same = one["related"][0], one["same_mutations"]
            lines.append(
                f"relatives in {name} (>= {near['identity']:.0%} identical): {near['proteins']} of {self.proteins} "
                f"proteins, {near['rows']} of {self.measurements} measurements; the same mutation: {same}"
            )
        return lines + self.notes


def write_delta_tm_card(model: DeltaTmModel, evaluations: Path, *, unlabelled_proteins: str | None = None) -> Path:
    """Write ``CARD.md`` into the folder of a model, from its manifest and from saved evaluations of it.

    Args:
        model: The model.
        evaluations: Folder with the JSON files that ``evaluate_delta_tm`` leaves.
        unlabelled_proteins: Licence and source of the proteins that profiles were counted in.

    Returns:
        Path of the card.

    Raises:
        DataError: The folder is missing, or holds something else, or evaluations of another model.
        ArtifactError: The manifest lacks what the card needs, or the folder of the model cannot be written to.
    """
    if not evaluations.is_dir():
        raise DataError(f"{evaluations} is no folder of evaluations; evaluate the model first")
    found = [VariantEvaluation.read(path) for path in sorted(evaluations.glob("*.json"))]
    if others := [one.name for one in found if one.digest != model.digest]:
        raise DataError(f"{evaluations}: {', '.join(others)} is of another model; evaluate this one again")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("enzyme_stability"),
        autoescape=jinja2.select_autoescape(),  # HTML and XML by suffix, so not Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": lambda text: " ".join(str(text).split()).replace("|", r"\|"),
        "count": "{:,}".format,
        "figure": _figure_text,
        "number": _decimal,
        "share": _share,
        "table": lambda name: Path(name).name,  # of one's own table the folder is nobody's business
    }
    try:
        text = environment.get_template("delta_tm_card.md.j2").render(_content(model, found, unlabelled_proteins))
    except (AttributeError, LookupError, TypeError, ValueError, jinja2.UndefinedError) as error:
        raise ArtifactError(f"{model.folder / MANIFEST} lacks what the card needs: {error!r}") from None
    path = model.folder / "CARD.md"
    with writing(model.folder):
        path.write_text(re.sub(r"\n{3,}", "\n\n", text), encoding="utf-8")
    return path


def _content(model: DeltaTmModel, found: list[VariantEvaluation], unlabelled_proteins: str | None) -> dict[str, Any]:
    """What the template speaks of."""
    training = model.manifest["training"]
    config = training["config"]
    own = {"description": "measured variants", "source": "their owner"}
    tables = [
        {"name": Path(name).name, **own}
        if name not in PUBLIC_TABLES
        else {"name": name, "description": PUBLIC_TABLES[name].description, "source": _SOURCE}
        for name in (config["table"], *config["auxiliary"])
    ]
    folds = [
        {
            "name": KINDS[kind],
            "methods": [(KINDS[kind], one["delta_tm"])],
            "coverage": one["coverage"],
            "width": one["mean_width_celsius"],
            "reliability": one["reliability"],
        }
        for kind, one in training["folds"].items()
    ]
    folds[-1]["methods"].append(("formula", training["folds"][PLAIN]["formula"]))  # the same in all
    ours = [(one, method) for one in found for method in one.comparison if method.kind == "ours"]
    return {
        "name": model.name,
        "description": model.manifest["description"],
        "sign": SIGN,
        "model_option": "" if model.name == "delta_tm" else f" --model {model.folder.name}",
        "kinds": list(model.manifest["heads"]),
        "training": training,
        "config": config,
        "tables": tables,
        "folds": folds,
        "less_stable": folds[0]["reliability"]["base_rate"] < 0.5,
        "evaluations": found,
        "way_back": [(one, m) for one, m in ours if m.rows == ALL and m.antisymmetry and m.reverse_bias],
        "unlabelled_proteins": unlabelled_proteins,
        "formula": FORMULA,
        "confidence": CONFIDENCE,
        "minimum_protein": MINIMUM_PROTEIN,
        "settings": json.dumps({name: config[name] for name in _SETTINGS}, indent=2),
    }


def _decimal(value: float | None, digits: int = 0) -> str:
    return _ABSENT if value is None else f"{value:.{digits}f}"


def _share(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def _figure_text(figure: Figure | Mapping[str, float | None] | None, digits: int = 2) -> str:
    return _ABSENT if figure is None else Figure.model_validate(figure).text(digits)


def _number(figure: Figure | None, digits: int = 2) -> str:
    return _ABSENT if figure is None else f"{figure.value:.{digits}f}"


def _by_pearson(one: MethodFigures) -> float:
    return math.inf if one.pearson is None else -one.pearson.value
