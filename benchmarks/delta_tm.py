"""What the delta-Tm model is worth on public test tables, trained strictly and on its tables as they were published.

Trains the model twice from its default settings: as shipped, with every protein that is related to one of the test
proteins of S571 and S669 left out, and on S4346 and S8754 as published, nothing left out: many proteins of the test
tables, and some of the very same mutations, are in these, so the second model shows how much such a figure flatters.
Both score S571 (delta Tm), S669 and M1261 (ddG; of M1261 no relatives are left out in either) from the sequence alone
and, with a database of proteins, with relatives; beside them the formula and the published methods. delta Tm =
Tm(variant) - Tm(wild type), positive = more stable. Nothing is chosen here.

Needs the extra 'dev' and the folder variants/ of the public data sets.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from enzyme_stability.config.delta_tm import DeltaTmConfig
from enzyme_stability.data.variant_tables import table_path
from enzyme_stability.variants.card import MethodFigures, VariantEvaluation
from enzyme_stability.variants.evaluation import evaluate_delta_tm
from enzyme_stability.variants.figures import ALL
from enzyme_stability.variants.model import DeltaTmModel
from enzyme_stability.variants.scan import SIGN
from enzyme_stability.variants.training import EXPECTED_PROFILE, train_delta_tm
from reporting import DATA, RESULTS, ROOT, Data, Results, Smoke, data_file, keep, machine, number, run, show

TESTS = ("S571", "S669", "M1261")
NETWORK = ROOT / "src" / "enzyme_stability" / "pretrained" / "delta_tm" / EXPECTED_PROFILE
_SMOKE_ROWS, _SMOKE_BOOTSTRAP = 300, 20


def main(
    data: Data = DATA,
    database: Annotated[
        Path | None, typer.Option(help="FASTA file of proteins to look for relatives in; without it, none are.")
    ] = None,
    network: Annotated[Path, typer.Option(help="Network that foretells profiles; the built-in model's.")] = NETWORK,
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples for the 95 % intervals.")] = 1000,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 takes all cores.")] = 0,
    results: Results = RESULTS,
    smoke: Smoke = False,
) -> None:
    """Train strictly and as published, and score the test tables; see the top of this file."""
    facts = machine()
    data_file(data, "variants")
    strict = DeltaTmConfig()
    if smoke:
        quick = strict.trees.model_copy(update={"trees": 10, "minimum_leaf_size": 10})
        strict = strict.model_copy(update={"trees": quick, "folds": 2, "auxiliary": (), "held_out": TESTS[:1]})
        bootstrap = min(bootstrap, _SMOKE_BOOTSTRAP)
    models = {"strict": strict, "as published": strict.model_copy(update={"held_out": ()})}
    scored: dict[str, Any] = {}
    found: dict[str, list[VariantEvaluation]] = {test: [] for test in (TESTS[:1] if smoke else TESTS)}
    content = {
        "sign": SIGN,
        "bootstrap": bootstrap,
        "relatives_from": None if database is None else database.name,
        "models": scored,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = _sample(data, folder / "data") if smoke else data
        for how, config in models.items():
            print(f"training, {how} ...", flush=True)
            named = config.model_copy(update={"name": how})
            model = train_delta_tm(named, root, network, folder / how, database=database, threads=threads)
            scored[how] = {"training": _told(model), "tests": {}}
            for test, evaluations in found.items():
                print(f"{how}: {test} ...", flush=True)
                one = evaluate_delta_tm(
                    model,
                    test,
                    root=root,
                    output=folder / "out",
                    database=database,
                    threads=threads,
                    bootstrap=bootstrap,
                )
                evaluations.append(one)
                scored[how]["tests"][test] = one.model_dump(mode="json", exclude={"digest", "sign", "model"})
                kept = keep("delta_tm", results, content, facts, smoke=smoke)  # a run broken off leaves what it has
    for test, evaluations in found.items():
        _print(test, evaluations)
    print(f"\n{SIGN}; on {facts['cpu']}, {facts['cores']} cores; figures are in {kept.name}")


def _sample(data: Path, root: Path) -> Path:
    """A data folder with a part of the variants, whole proteins of them."""
    for name in ("S4346", TESTS[0]):
        path = table_path(name, root)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pd.read_csv(data_file(data, str(table_path(name, Path()))))
        table.groupby("wt_seq").head(5).head(_SMOKE_ROWS).to_csv(path, index=False)
    return root


def _told(model: DeltaTmModel) -> dict[str, Any]:
    training = model.manifest["training"]
    folds = {kind: {"delta_tm": one["delta_tm"], "formula": one["formula"]} for kind, one in training["folds"].items()}
    return {"config": training["config"], "measurements": training["measurements"], "folds": folds}


def _print(test: str, evaluations: list[VariantEvaluation]) -> None:
    """One table a test: ours of either training, then the formula and the published methods."""
    ours = [(one, m) for one in evaluations for m in one.comparison if m.kind == "ours"]
    first = evaluations[0]
    others = [(first, m) for m in first.comparison if m.kind != "ours" and m.rows == ALL]
    show(
        f"{test}: {first.description}, {first.quantity}",
        (
            "method",
            "rows",
            "n",
            "Pearson",
            "Spearman",
            "RMSE °C",
            "right sign",
            "majority",
            "within protein",
            "way back",
        ),
        [_cells(one.quantity, m) for one, m in (*ours, *others)],
    )


def _cells(quantity: str, m: MethodFigures) -> tuple[str | None, ...]:
    pearson, *others = (
        m.pearson,
        m.spearman,
        m.rmse,
        m.sign_accuracy,
        m.majority_sign,
        m.protein_spearman,
        m.antisymmetry,
    )
    shown = [None if one is None else number(one.value, 2) for one in others]
    if quantity != "dTm":
        shown[1] = None
    return (m.method, m.rows, str(m.n), None if pearson is None else pearson.text(), *shown)


if __name__ == "__main__":
    run(main)
