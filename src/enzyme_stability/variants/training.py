"""Trains the delta-Tm model: delta Tm as the task, ddG learned along, relatives of the test proteins left out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from enzyme_stability.config.delta_tm import DeltaTmConfig
from enzyme_stability.data.splits import folds_by_cluster
from enzyme_stability.data.variant_tables import read_variant_table
from enzyme_stability.errors import DataError
from enzyme_stability.heads.graph import Graph, require_onnx
from enzyme_stability.heads.trees import fit_trees
from enzyme_stability.manifest import writing
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.uncertainty import ConformalInterval
from enzyme_stability.variant import Variant
from enzyme_stability.variants.alignment import Alignment, search_relatives_of
from enzyme_stability.variants.baseline import substitution_formula
from enzyme_stability.variants.expected_profile import ExpectedProfile
from enzyme_stability.variants.features import LANGUAGE_MODEL, NAMES, RISING, FloatArray, IntArray, both_ways, indices
from enzyme_stability.variants.figures import reliability, variant_figures
from enzyme_stability.variants.leakage import related_proteins, variant_leakage, without_relatives
from enzyme_stability.variants.manifest import FORMAT, MANIFEST, PLAIN, WITH_RELATIVES
from enzyme_stability.variants.model import DeltaTmModel
from enzyme_stability.variants.profile import Profile
from enzyme_stability.variants.scan import SIGN

if TYPE_CHECKING:
    import lightgbm

Features = npt.NDArray[np.float32]
Report = Callable[[str], None]

EXPECTED_PROFILE = "expected_profile.onnx"
_SENSITIVITY = 7.5


@dataclass(frozen=True)
class Examples:
    """Measured substitutions, those of delta Tm before those of ddG.

    Attributes:
        table: ``protein`` (number of the distinct wild type), ``wild_type``, ``target``, ``quantity`` and, of the one
            substitution, ``place``, ``before`` and ``after``.
        target: delta Tm in degC; of ddG a number of about the same spread.
        main: Whether it is delta Tm.
    """

    table: pd.DataFrame
    target: FloatArray
    main: npt.NDArray[np.bool_]


def train_delta_tm(
    config: DeltaTmConfig,
    root: Path,
    expected_profile: Path,
    output: Path,
    *,
    database: Path | None = None,
    report: Report = print,
    threads: int = 0,
) -> DeltaTmModel:
    """Train, calibrate on folds of homology clusters, and write a model folder.

    Args:
        config: What to learn from, and how.
        root: Folder of the public tables.
        expected_profile: Network that foretells profiles, as from ``train_expected_profile``.
        output: Folder to write.
        database: FASTA file of proteins to look for relatives in; without it the model knows only the sequence.
        report: Told of progress.
        threads: Threads; 0 takes all cores.

    Raises:
        DataError: A table cannot be read, or nothing is left to learn from.
        MissingDependencyError: MMseqs2, LightGBM or ONNX is not installed.
    """
    require_onnx()
    examples, leakage = read_examples(config, root, threads)
    report(f"{examples.main.sum():,} measurements of delta Tm and {(~examples.main).sum():,} of ddG to learn from")
    wild_types = dict(zip(examples.table["protein"].tolist(), examples.table["wild_type"].tolist(), strict=True))
    folds = _folds(examples, config, threads)
    network = ExpectedProfile(expected_profile, threads)
    scores = _language_scores(config, wild_types, report, threads)
    found: dict[str, Mapping[int, Alignment]] = {PLAIN: {}}
    if database is not None:
        report(f"looking for relatives of {len(wild_types):,} proteins in {database.name}")
        found[WITH_RELATIVES] = find_relatives(wild_types, database, threads)
    kinds = {}
    for kind, alignments in found.items():
        features = _features(examples.table, network, alignments, scores, config.pseudocount)
        kinds[kind] = _fit(features, examples, folds, config, threads)
        pearson = kinds[kind].figures["delta_tm"]["pearson"]["value"]
        report(f"{kind}: Pearson {pearson:.3f} on proteins left out, formula {kinds[kind].formula:.3f}")
    _write(output, config, expected_profile, kinds, leakage, examples, database)
    return DeltaTmModel(output, threads)


def read_examples(
    config: DeltaTmConfig, root: Path, threads: int = 0
) -> tuple[Examples, dict[str, dict[str, dict[str, Any]]]]:
    """Single substitutions to learn from, and what the tables shared with the test tables before these were left out.

    Raises:
        DataError: A table cannot be read, is of the wrong quantity, or nothing is left of it.
    """
    tests = {name: read_variant_table(name, root) for name in config.held_out}
    tables, leakage = [], {}
    for name, quantity in ((config.table, "dTm"), *((other, "ddG") for other in config.auxiliary)):
        table = read_variant_table(name, root)
        if set(table["quantity"]) != {quantity}:
            raise DataError(f"{name} holds {', '.join(sorted(set(table['quantity'])))}; {quantity} is needed here")
        table = table[(table["substitutions"] == 1) & np.isfinite(table["target"])].reset_index(drop=True)
        if table.empty:
            raise DataError(f"{name} has no measured single substitution")
        leakage[name] = {test: variant_leakage(table, other).to_dict() for test, other in tests.items()}
        for other in tests.values():
            table = without_relatives(table, other, config.held_out_identity, threads=threads or None)
        if table.empty:
            raise DataError(f"nothing is left of {name}: every protein is related to one of the held-out tables")
        limit = config.largest_change if quantity == "dTm" else config.largest_change / 3
        tables.append(table.assign(cut=table["target"].clip(-limit, limit)))
    spread = tables[0]["cut"].std()
    if not all(table["cut"].std() > 0 for table in tables):
        raise DataError("all measurements of a table are the same, so there is nothing to learn from it")
    scaled = [table["cut"] * (1 if k == 0 else spread / table["cut"].std()) for k, table in enumerate(tables)]
    joined = pd.concat(tables, ignore_index=True)
    joined["protein"] = pd.factorize(joined["wild_type"])[0]
    return Examples(
        with_places(joined), pd.concat(scaled).to_numpy(), (joined["quantity"] == "dTm").to_numpy()
    ), leakage


def with_places(table: pd.DataFrame) -> pd.DataFrame:
    """Single substitutions with ``place`` (from 0), ``before`` and ``after`` (as columns of ``AMINO_ACIDS``)."""
    variants = [Variant.parse(text) for text in table["variant"]]
    return table.assign(
        place=[variant.places[0] for variant in variants],
        before=[AMINO_ACIDS.index(variant.substitutions[0].wild_type) for variant in variants],
        after=[AMINO_ACIDS.index(variant.substitutions[0].substitution) for variant in variants],
    )


def find_relatives(wild_types: dict[int, str], database: Path, threads: int = 0) -> dict[int, Alignment]:
    """Relatives of each protein that has any, by the number of the protein."""
    found = search_relatives_of(list(wild_types.values()), database, threads=threads, sensitivity=_SENSITIVITY)
    pairs = zip(wild_types, found, strict=True)
    return {protein: alignment for protein, alignment in pairs if len(alignment.rows) > 1}


def _language_scores(
    config: DeltaTmConfig, wild_types: Mapping[int, str], report: Report, threads: int
) -> Mapping[int, FloatArray] | None:
    if config.language_model is None:
        return None
    from enzyme_stability.variants.language_scores import (
        load_masked_language_model,
        masked_marginals,
        wild_type_marginals,
    )

    report(f"scoring {len(wild_types):,} proteins with {config.language_model}")
    model = load_masked_language_model(config.language_model, threads=threads)
    score = masked_marginals if config.language_score == "masked-marginals" else wild_type_marginals
    return {protein: score(model, chain) for protein, chain in wild_types.items()}


def _features(
    table: pd.DataFrame,
    network: ExpectedProfile,
    alignments: Mapping[int, Alignment],
    scores: Mapping[int, FloatArray] | None,
    pseudocount: float,
) -> Features:
    """Shape (n, 2 features), as ``both_ways``; proteins without relatives are described by their sequence."""
    parts, order = [], []
    for _, rows in table.groupby("protein", sort=True):
        protein, chain = int(rows["protein"].iloc[0]), str(rows["wild_type"].iloc[0])
        probabilities = network.probabilities(indices(chain))
        effective = np.zeros(len(chain))
        if (alignment := alignments.get(protein)) is not None:
            profile = Profile.from_alignment(alignment, prior=probabilities, pseudocount=pseudocount)
            probabilities, effective = profile.probabilities, profile.effective_sequences
        places, before, after = (rows[name].to_numpy() for name in ("place", "before", "after"))
        own = None if scores is None else scores[protein]
        parts.append(both_ways(probabilities, effective, places, before, after, own))
        order.append(rows.index.to_numpy())
    return np.concatenate(parts)[np.argsort(np.concatenate(order), kind="stable")]


def _folds(examples: Examples, config: DeltaTmConfig, threads: int) -> IntArray:
    """Fold of each example: related proteins, over however many steps, share one."""
    table = examples.table
    related = related_proteins(table, table, config.held_out_identity, threads=threads or None)
    pairs = np.array([(a, b) for a, others in related.items() for b in others], dtype=np.int64).reshape(-1, 2)
    count = int(table["protein"].max()) + 1
    joined = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(count, count))
    families = connected_components(joined, directed=False)[1][table["protein"]]
    return folds_by_cluster(families, config.folds, config.seed)


@dataclass(frozen=True)
class _Head:
    """A fitted head with what was learned of its errors on proteins left out."""

    graph: bytes
    interval: ConformalInterval
    intercept: float
    slope: float
    figures: dict[str, Any]
    formula: float


def _fit(features: Features, examples: Examples, folds: IntArray, config: DeltaTmConfig, threads: int) -> _Head:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    main, width = examples.main, features.shape[1] // 2
    task = (~main).astype(np.float32)
    ways = [np.column_stack([way, task]) for way in np.split(features, 2, axis=1)]
    weights = np.where(main, 1.0, config.auxiliary_weight)
    out = {name: np.full(len(folds), np.nan) for name in ("tm", "lower", "upper")}
    for fold in range(config.folds):
        learn, asked = folds != fold, (folds == fold) & main
        boosters = _grow([way[learn] for way in ways], examples.target[learn], weights[learn], config, threads)
        there, back = (
            {name: np.mean([b.predict(way[asked]) for b in models], axis=0) for name, models in boosters.items()}
            for way in ways
        )
        out["tm"][asked] = (there["tm"] - back["tm"]) / 2
        out["lower"][asked], out["upper"][asked] = there["lower"], there["upper"]
    told = {name: values[main] for name, values in out.items()}
    measured = examples.table.loc[main, "target"].to_numpy(dtype=float)
    interval = ConformalInterval.fit(measured, told["tm"], told["lower"], told["upper"], 0.5)
    lower, upper = interval.interval(told["tm"], told["lower"], told["upper"], config.coverage)
    line, groups, stable = LogisticRegression(C=1e6), folds[main], measured > 0
    if any(np.unique(stable[groups != fold]).size < 2 for fold in np.unique(groups)):
        raise DataError("more and less stable variants are needed in several families, to learn probabilities from")
    probability = cross_val_predict(
        line, told["tm"][:, None], stable, groups=groups, cv=LeaveOneGroupOut(), method="predict_proba"
    )[:, 1]
    line.fit(told["tm"][:, None], stable)
    table = examples.table.loc[main].assign(predicted=told["tm"], probability=probability)
    formula = substitution_formula()[table["before"], table["after"]]
    figures: dict[str, Any] = {
        "delta_tm": variant_figures(table),
        "formula": variant_figures(table.assign(predicted=formula)),
        "coverage": {"nominal": config.coverage, "observed": float(((lower <= measured) & (measured <= upper)).mean())},
        "mean_width_celsius": float((upper - lower).mean()),
        "reliability": reliability(probability, stable),
    }
    final = _grow(ways, examples.target, weights, config, threads)
    return _Head(
        _to_onnx(final, width),
        interval,
        float(line.intercept_[0]),
        float(line.coef_[0, 0]),
        figures,
        figures["formula"]["pearson"]["value"],
    )


def _grow(
    ways: Sequence[Features], target: FloatArray, weights: FloatArray, config: DeltaTmConfig, threads: int
) -> dict[str, list[lightgbm.Booster]]:
    """Trees for the value, from both ways, and for the raw interval, from the way there."""
    names = [*NAMES, LANGUAGE_MODEL][: ways[0].shape[1] - 1]
    rising = np.array([*(name in RISING for name in names), False])
    grow = partial(fit_trees, settings=config.trees, threads=threads)
    both, signed, twice = np.concatenate(ways), np.concatenate([target, -target]), np.tile(weights, 2)
    seeds = range(config.seed, config.seed + config.ensemble)
    values = [model for k in seeds for model in grow(both, signed, seed=k, weights=twice, rising=rising)["tm"]]
    return {**grow(ways[0], target, seed=config.seed, weights=weights), "tm": values}


def _to_onnx(boosters: Mapping[str, list[lightgbm.Booster]], width: int) -> bytes:
    """Input ``descriptors`` (n, 2 width): the way there and back. The task, delta Tm, is set inside.

    There is no similarity: it is 1.
    """
    graph = Graph()
    shape = graph.constant(np.array([0, 0, 0, 1], dtype=np.int64))
    ways = []
    for first in (0, width):
        columns = graph.constant(np.arange(first, first + width))
        way = graph.add("Gather", "descriptors", columns, axis=1)
        ways.append(graph.add("Pad", way, shape, graph.constant(np.array(0, dtype=np.float32))))
    for name in ("lower", "upper"):
        graph.mean([graph.trees(booster, ways[0], width + 1) for booster in boosters[name]], name)
    there, back = (
        graph.add("Mean", *(graph.trees(booster, way, width + 1) for booster in boosters["tm"])) for way in ways
    )
    half = graph.constant(np.array(0.5, dtype=np.float32))
    graph.add("Mul", graph.add("Sub", there, back), half, name="tm")
    nothing = graph.add("Mul", "tm", graph.constant(np.array(0, dtype=np.float32)))
    graph.add("Exp", nothing, name="similarity")
    return graph.serialise({"descriptors": (None, 2 * width)})


def _write(
    folder: Path,
    config: DeltaTmConfig,
    expected_profile: Path,
    kinds: Mapping[str, _Head],
    leakage: dict[str, Any],
    examples: Examples,
    database: Path | None,
) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("head_*.onnx"), folder / "CARD.md", folder / MANIFEST):
            old.unlink(missing_ok=True)
        if expected_profile.resolve() != (folder / EXPECTED_PROFILE).resolve():
            shutil.copyfile(expected_profile, folder / EXPECTED_PROFILE)
        for kind, head in kinds.items():
            (folder / f"head_{kind}.onnx").write_bytes(head.graph)
        manifest = {
            "format": FORMAT,
            "name": config.name,
            "description": config.description,
            "sign": SIGN,
            "expected_profile": _part(folder / EXPECTED_PROFILE),
            "heads": {kind: _part(folder / f"head_{kind}.onnx") for kind in kinds},
            "intervals": {
                kind: {
                    "below": np.round(head.interval.below, 4).tolist(),
                    "above": np.round(head.interval.above, 4).tolist(),
                    "upper_tail_share": head.interval.upper_tail_share,
                }
                for kind, head in kinds.items()
            },
            "probability": {kind: {"intercept": head.intercept, "slope": head.slope} for kind, head in kinds.items()},
            "pseudocount": config.pseudocount,
            "language_model": None
            if config.language_model is None
            else {"model": config.language_model, "method": config.language_score},
            "training": {
                "config": config.model_dump(mode="json"),
                "measurements": {"dTm": int(examples.main.sum()), "ddG": int((~examples.main).sum())},
                "proteins": int(examples.table["protein"].nunique()),
                "expected_profile": ExpectedProfile(folder / EXPECTED_PROFILE).made,
                "relatives_from": None if database is None else database.name,
                "leakage": leakage,
                "folds": {kind: head.figures for kind, head in kinds.items()},
            },
        }
        unfinished = folder / f".{MANIFEST}.part"
        unfinished.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(folder / MANIFEST)


def _part(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
