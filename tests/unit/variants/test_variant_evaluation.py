"""A delta-Tm model on measured variants: every row by hand, relatives apart, and files that say what was judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enzyme_stability.config.delta_tm import DeltaTmConfig
from enzyme_stability.errors import ArtifactError, ConfigError, DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants.alignment import Alignment
from enzyme_stability.variants.baseline import substitution_formula, substitution_matrix
from enzyme_stability.variants.evaluation import COVERAGE, LEARNED, VariantEvaluation, evaluate_delta_tm
from enzyme_stability.variants.figures import ALL, UNRELATED
from enzyme_stability.variants.manifest import MANIFEST
from enzyme_stability.variants.model import DeltaTmModel
from enzyme_stability.variants.scan import SIGN
from enzyme_stability.variants.training import find_relatives, train_delta_tm

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "delta_tm.py"
DELTA_TM, LOWER, UPPER = "delta_tm_celsius", "delta_tm_lower_celsius", "delta_tm_upper_celsius"
PLAIN, RELATIVES = "tiny, sequence alone", "tiny, with relatives"
LENGTH = 90


def chain(random: np.random.Generator) -> str:
    return "".join(random.choice(list(AMINO_ACIDS), LENGTH))


def copied(protein: str, identity: float, random: np.random.Generator) -> str:
    kept = random.uniform(0, 1, len(protein)) < identity
    others = random.choice(list(AMINO_ACIDS), len(protein))
    return "".join(own if same else other for own, same, other in zip(protein, kept, others, strict=True))


def measured(proteins: list[str], count: int, random: np.random.Generator) -> pd.DataFrame:
    """Single substitutions whose delta Tm follows the plain formula, more or less."""
    rows = []
    for protein in proteins:
        for place in random.choice(len(protein), count, replace=False):
            to = random.choice([a for a in AMINO_ACIDS if a != protein[place]])
            score = substitution_formula()[AMINO_ACIDS.index(protein[place]), AMINO_ACIDS.index(to)]
            rows.append((protein, f"{protein[place]}{place + 1}{to}", round(2 * score + random.normal(0, 2), 2)))
    return pd.DataFrame(rows, columns=["wild_type", "variant", "delta_tm_celsius"])


def write_network(path: Path) -> Path:
    """A network that foretells of each place what its own residue is replaced by elsewhere."""
    from onnx import TensorProto, helper, numpy_helper, save

    table = np.full((22, 20), 0.05, dtype=np.float32)
    likely = np.exp(0.3 * substitution_matrix())
    table[:20] = likely / likely.sum(axis=1, keepdims=True)
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array(12), "middle")]
    nodes = [
        helper.make_node("Gather", ["windows", "middle"], ["own"], axis=1),
        helper.make_node("Gather", ["table", "own"], ["probabilities"], axis=0),
    ]
    given = [
        helper.make_tensor_value_info("windows", TensorProto.INT64, [None, 25]),
        helper.make_tensor_value_info("composition", TensorProto.FLOAT, [None, 20]),
    ]
    found = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 20])]
    graph = helper.make_graph(nodes, "expected_profile", given, found, weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables to learn from and to test on (the first test protein is related to one learned from), and relatives."""
    random = np.random.default_rng(5)
    root = tmp_path_factory.mktemp("delta_tm")
    learned = [chain(random) for _ in range(8)]
    tested = [copied(learned[0], 0.8, random), *(chain(random) for _ in range(3))]
    measured(learned, 30, random).to_csv(root / "train.csv", index=False)
    table = measured(tested, 25, random)
    table["FoldX_pred"] = table["delta_tm_celsius"] + random.normal(0, 3, len(table))
    table.loc[0, "FoldX_pred"] = np.nan
    table.to_csv(root / "test.csv", index=False)
    relatives = [copied(protein, 0.7, random) for protein in [*learned, *tested[:3]] for _ in range(6)]
    (root / "database.fasta").write_text("".join(f">p{k}\n{text}\n" for k, text in enumerate(relatives)))
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> DeltaTmModel:
    settings = {"trees": 20, "learning_rate": 0.2, "leaves": 4, "minimum_leaf_size": 10}
    values = {"name": "tiny", "table": str(folder / "train.csv"), "auxiliary": (), "folds": 2, "trees": settings}
    config = DeltaTmConfig.model_validate(values | {"held_out": [str(folder / "test.csv")]})
    network = write_network(folder / "network.onnx")
    database = folder / "database.fasta"
    return train_delta_tm(config, folder, network, folder / "model", database=database, report=str, threads=1)


@pytest.fixture(scope="module")
def evaluated(folder: Path, model: DeltaTmModel) -> VariantEvaluation:
    where = {"root": folder, "output": folder / "found", "database": folder / "database.fasta"}
    return evaluate_delta_tm(model, str(folder / "test.csv"), **where, threads=1, bootstrap=50)


@pytest.fixture
def alone(model: DeltaTmModel, tmp_path: Path) -> DeltaTmModel:
    """The model far away from the tables that it learned from."""
    return with_config(model, tmp_path / "alone", table=str(tmp_path / "gone.csv"), held_out=[])


def with_config(model: DeltaTmModel, folder: Path, **changes: object) -> DeltaTmModel:
    shutil.copytree(model.folder, folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["training"]["config"] |= changes
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return DeltaTmModel(folder, 1)


def predictions(folder: Path, name: str = "test") -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.predictions.csv")


def figures(evaluation: VariantEvaluation, method: str, rows: str = ALL):
    (one,) = [m for m in evaluation.comparison if m.method == method and m.rows == rows]
    return one


def test_ours_the_formula_and_the_published_methods_stand_side_by_side(evaluated, folder) -> None:
    table, found = pd.read_csv(folder / "test.csv"), predictions(folder / "found")
    assert [m.method for m in evaluated.comparison if m.rows == ALL] == [PLAIN, RELATIVES, "formula", "FoldX"]
    assert (evaluated.measurements, evaluated.proteins, evaluated.quantity) == (100, 4, "dTm")
    for method, column in ((PLAIN, found[f"{PLAIN}: {DELTA_TM}"]), ("FoldX", table["FoldX_pred"])):
        rows = column.notna()
        y, p = table.loc[rows, "delta_tm_celsius"], column[rows]
        one = figures(evaluated, method)
        assert one.n == rows.sum()
        assert one.pearson.value == pytest.approx(np.corrcoef(y, p)[0, 1])
        assert one.rmse.value == pytest.approx(((y - p) ** 2).mean() ** 0.5)
        assert one.sign_accuracy.value == pytest.approx((np.sign(y) == np.sign(p))[y != 0].mean())
    assert figures(evaluated, "FoldX").unanswered == 1
    assert figures(evaluated, "formula").rmse is None
    assert figures(evaluated, PLAIN).pearson.value > 0.4  # the rule is one that the model can learn


def test_predictions_and_the_way_back_are_those_of_the_model(evaluated, folder, model) -> None:
    table, found = pd.read_csv(folder / "test.csv"), predictions(folder / "found")
    wild_type = table["wild_type"].iloc[-1]
    rows = table["wild_type"] == wild_type
    variants = [Variant.parse(text) for text in table.loc[rows, "variant"]]
    expected = model.predict(wild_type, variants, coverage=COVERAGE)
    for column, values in zip((DELTA_TM, LOWER, UPPER, "probability_stabilising"), expected, strict=True):
        np.testing.assert_allclose(found.loc[rows, f"{PLAIN}: {column}"], values, rtol=1e-6)
    back = []
    for one in variants:
        mutant = one.apply(wild_type)
        back.append(model.predict(mutant, [Variant.between(mutant, wild_type)]).delta_tm[0])
    np.testing.assert_allclose(found.loc[rows, f"{PLAIN}: reverse_{DELTA_TM}"], back, rtol=1e-6)
    one = figures(evaluated, PLAIN)
    both = found[[f"{PLAIN}: {DELTA_TM}", f"{PLAIN}: reverse_{DELTA_TM}"]].to_numpy()
    assert one.antisymmetry.value == pytest.approx(np.corrcoef(both.T)[0, 1])
    assert one.reverse_bias.value == pytest.approx(both.sum(axis=1).mean() / 2)


def test_with_relatives_the_way_back_starts_from_the_relatives_of_the_wild_type(evaluated, folder, model) -> None:
    table, found = pd.read_csv(folder / "test.csv"), predictions(folder / "found")
    assert (evaluated.relatives_from, evaluated.proteins_with_relatives) == ("database.fasta", 3)
    wild_type, last = table["wild_type"].iloc[30], table["wild_type"].iloc[-1]
    alignment = find_relatives({0: wild_type}, folder / "database.fasta", 1)[0]
    row = table.index[table["wild_type"] == wild_type][0]
    variant = Variant.parse(table["variant"][row])
    there = model.predict(wild_type, [variant], alignment=alignment).delta_tm[0]
    assert found[f"{RELATIVES}: {DELTA_TM}"][row] == pytest.approx(there)
    aligned = alignment.rows.copy()
    aligned[0, variant.places[0]] = AMINO_ACIDS.index(variant.substitutions[0].substitution)
    mutant = variant.apply(wild_type)
    back = model.predict(mutant, [Variant.between(mutant, wild_type)], alignment=Alignment(aligned)).delta_tm[0]
    assert found[f"{RELATIVES}: reverse_{DELTA_TM}"][row] == pytest.approx(back)
    unknown = table["wild_type"] == last  # nothing is in the database for it: it is as without
    columns = [f"{method}: {DELTA_TM}" for method in (PLAIN, RELATIVES)]
    assert (found.loc[unknown, columns[0]] == found.loc[unknown, columns[1]]).all()
    assert (found.loc[~unknown, columns[0]] != found.loc[~unknown, columns[1]]).any()


def test_relatives_of_a_held_out_table_are_in_the_training_table_as_published_only(evaluated, folder) -> None:
    published = "train.csv as published"
    related = predictions(folder / "found")[f"relative in {published}"]
    assert related.tolist() == [True] * 25 + [False] * 75
    assert set(evaluated.groups()) == {ALL, f"{UNRELATED} in {published}"}
    apart = figures(evaluated, PLAIN, f"{UNRELATED} in {published}")
    assert (apart.n, apart.proteins) == (75, 3)
    assert list(evaluated.leakage) == [published]
    near = evaluated.leakage[published]["related"][0]
    assert (near["proteins"], near["rows"]) == (1, 25)
    assert any("they were left out of the training" in note for note in evaluated.notes)


def test_relatives_in_what_was_learned_are_told_apart_where_none_were_left_out(folder, model, tmp_path) -> None:
    leaky = with_config(model, tmp_path / "leaky", held_out=[])
    found = evaluate_delta_tm(
        leaky, str(folder / "test.csv"), root=folder, output=tmp_path / "found", threads=1, bootstrap=5
    )
    assert set(found.groups()) == {ALL, UNRELATED}  # the table as published gives the same rows: once is enough
    assert figures(found, PLAIN, UNRELATED).n == 75
    assert found.leakage[LEARNED]["related"][0]["rows"] == 25
    assert found.leakage[LEARNED]["train"]["rows"] == 240
    assert predictions(tmp_path / "found")[f"relative in {LEARNED}"].sum() == 25


def test_intervals_probabilities_and_hits_are_judged(evaluated, folder) -> None:
    table, found = pd.read_csv(folder / "test.csv"), predictions(folder / "found")
    y = table["delta_tm_celsius"]
    inside = (found[f"{PLAIN}: {LOWER}"] <= y) & (y <= found[f"{PLAIN}: {UPPER}"])
    assert evaluated.intervals[PLAIN]["observed"]["value"] == pytest.approx(inside.mean())
    assert evaluated.intervals[PLAIN]["nominal"] == COVERAGE
    p = found[f"{PLAIN}: probability_stabilising"]
    assert evaluated.reliability[PLAIN]["brier"] == pytest.approx(((p - (y > 0)) ** 2).mean())
    best = [
        (y[rows.index] > 0)[rows.nlargest(10).index].mean()
        for _, rows in found.groupby(table["wild_type"])[f"{PLAIN}: {DELTA_TM}"]
    ]
    assert evaluated.hit_rates[PLAIN]["top 10"]["hit_rate"]["value"] == pytest.approx(np.mean(best), abs=0.05)
    assert evaluated.hit_rates[PLAIN]["top 10"]["baseline"]["value"] > 0
    assert evaluated.hit_rates[PLAIN]["top 50"] is None


def test_what_is_saved_is_what_was_returned(evaluated, folder) -> None:
    assert VariantEvaluation.read(folder / "found" / "test.json") == evaluated
    assert str(folder) not in (folder / "found" / "test.json").read_text(encoding="utf-8")
    names = {path.name for path in (folder / "found").iterdir()}
    pictures = {f"test.{kind}.png" for kind in ("compare", "reliability", "hit_rates")}
    assert names == {"test.json", "test.predictions.csv"} | pictures


def test_the_summary_says_the_sign_and_puts_the_best_first(evaluated) -> None:
    text = evaluated.summary(200)
    assert SIGN in text
    order = [m.method for m in evaluated.groups()[ALL]]
    pearson = [figures(evaluated, method).pearson.value for method in order]
    assert pearson == sorted(pearson, reverse=True)
    places = [text.index(method) for method in order]
    assert places == sorted(places)
    one = figures(evaluated, PLAIN)
    assert f"{one.pearson.value:.2f} [{one.pearson.low:.2f}, {one.pearson.high:.2f}]" in text
    assert f"{one.sign_accuracy.value:.2f} ({one.majority_sign.value:.2f})" in text
    assert "RMSE °C" in text
    assert "1 of 4 proteins, 25 of 100 measurements" in text


def ddg(folder: Path, random: np.random.Generator) -> pd.DataFrame:
    """Two substitutions in each variant, in the columns of the public tables."""
    wild_type = chain(random)
    rows = []
    for first in range(0, 60, 5):
        mutant = list(wild_type)
        for place in (first, first + 3):
            mutant[place] = "A" if wild_type[place] != "A" else "W"
        rows.append(("x", wild_type, "".join(mutant), 7.0, 25.0, random.normal(-1, 2), random.normal(-1, 2)))
    table = pd.DataFrame(rows, columns=["name", "wt_seq", "mut_seq", "pH", "temp", "ddG", "DDMut_pred"])
    (folder / "variants").mkdir(parents=True)
    table.to_csv(folder / "variants" / "M1261.csv", index=False)
    return table


def test_effects_add_up_and_another_unit_has_no_error(alone, tmp_path) -> None:
    table = ddg(tmp_path, np.random.default_rng(2))
    output = tmp_path / "found"
    output.mkdir()
    (output / "M1261.hit_rates.png").write_bytes(b"of an earlier run")
    found = evaluate_delta_tm(alone, "M1261", root=tmp_path, output=output, threads=1, bootstrap=5)
    assert found.name == "M1261"
    assert found.quantity == "ddG"
    assert figures(found, PLAIN).rmse is None
    assert figures(found, "DDMut").rmse is not None
    assert found.intervals == {}
    assert "RMSE" not in found.summary()
    assert any("12 variants have several substitutions: their effects are added up" in note for note in found.notes)
    wild_type, mutant = table["wt_seq"][0], table["mut_seq"][0]
    pair = Variant.between(wild_type, mutant)
    singles = alone.predict(wild_type, [Variant((one,)) for one in pair.substitutions]).delta_tm
    rows = predictions(output, "M1261")
    assert rows[f"{PLAIN}: {DELTA_TM}"][0] == pytest.approx(singles.sum())
    formula = [
        substitution_formula()[AMINO_ACIDS.index(one.wild_type), AMINO_ACIDS.index(one.substitution)]
        for one in pair.substitutions
    ]
    assert rows["formula"][0] == pytest.approx(sum(formula))
    # twelve variants are too few for a hit rate; the picture of an earlier run is gone
    assert {path.suffixes[0] for path in output.glob("*.png")} == {".compare", ".reliability"}


def test_a_table_of_one_protein_has_figures_without_bounds(alone, folder, tmp_path) -> None:
    one = pd.read_csv(folder / "test.csv").iloc[:25]
    one.loc[len(one)] = [one["wild_type"][0], "WT", 0.0, np.nan]
    one.to_csv(tmp_path / "own.csv", index=False)
    found = evaluate_delta_tm(
        alone, str(tmp_path / "own.csv"), root=tmp_path, output=tmp_path / "out", threads=1, bootstrap=5
    )
    assert (found.measurements, found.proteins) == (25, 1)
    assert any("1 rows without a substitution are left out" in note for note in found.notes)
    assert any("gone.csv not found" in note for note in found.notes)
    assert found.leakage == {}
    ours = figures(found, PLAIN)
    assert ours.pearson.low is None
    assert f"{ours.pearson.value:.2f} │" in found.summary(200)
    assert (tmp_path / "out" / "own.hit_rates.png").is_file()
    assert str(tmp_path) not in (tmp_path / "out" / "own.json").read_text(encoding="utf-8")


def test_what_cannot_be_evaluated_is_said_in_one_sentence(alone, folder, tmp_path) -> None:
    one = pd.read_csv(folder / "test.csv")[["wild_type", "variant", "delta_tm_celsius"]].head(1)
    one.to_csv(tmp_path / "one.csv", index=False)
    where = {"root": tmp_path, "threads": 1}
    with pytest.raises(DataError, match=r"one\.csv has 1 variants; at least 2 are needed"):
        evaluate_delta_tm(alone, str(tmp_path / "one.csv"), output=tmp_path, **where)
    with pytest.raises(DataError, match="no such file"):
        evaluate_delta_tm(alone, "S571", output=tmp_path, **where)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write to"):
        evaluate_delta_tm(alone, str(folder / "test.csv"), output=tmp_path / "file", **where)
    del alone.manifest["heads"]["with_relatives"]
    with pytest.raises(ConfigError, match="trained without relatives"):
        evaluate_delta_tm(alone, str(folder / "test.csv"), output=tmp_path, database=folder / "database.fasta", **where)
    del alone.manifest["training"]["config"]
    with pytest.raises(ArtifactError, match="does not say what the model learned from"):
        evaluate_delta_tm(alone, str(folder / "test.csv"), output=tmp_path, **where)


@pytest.mark.parametrize("content", [b"", b"{", b'{"name": "x"}', b"\xff\xfe", b"[1]"])
def test_a_damaged_evaluation_is_named(tmp_path, content) -> None:
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.json is no evaluation of a delta-Tm model: "):
        VariantEvaluation.read(path)
    with pytest.raises(DataError, match=r"absent\.json cannot be read"):
        VariantEvaluation.read(tmp_path / "absent.json")


def run_benchmark(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ENZYME_STABILITY_DATA"}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, str(BENCHMARK), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == expect, done.stderr[-3000:] + done.stdout[-1000:]
    return done


@pytest.mark.slow
def test_the_benchmark_trains_both_ways_and_scores_them(data_root: Path, folder: Path, tmp_path: Path) -> None:
    network = folder / "network.onnx"
    write_network(network)
    shown = run_benchmark("--smoke", "--data", data_root, "--network", network, "--results", tmp_path).stdout
    text = (tmp_path / "delta_tm_smoke.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert str(data_root) not in text
    content = json.loads(text)
    assert content["sign"] == SIGN
    assert SIGN in shown
    strict, published = content["models"]["strict"], content["models"]["as published"]
    assert strict["training"]["measurements"]["dTm"] < published["training"]["measurements"]["dTm"]
    for how, scored in content["models"].items():
        comparison = scored["tests"]["S571"]["comparison"]
        assert {"ours", "baseline", "published"} == {one["kind"] for one in comparison}
        assert f"{how}, sequence alone" in {one["method"] for one in comparison}
    assert LEARNED in published["tests"]["S571"]["leakage"]
    assert LEARNED not in strict["tests"]["S571"]["leakage"]
    assert "GeoDTm-Seq" in shown


def test_the_benchmark_says_in_one_sentence_that_there_are_no_data(tmp_path: Path) -> None:
    said = run_benchmark("--data", tmp_path, "--results", tmp_path, expect=2).stderr
    assert said.count("\n") == 1
    assert "--data or ENZYME_STABILITY_DATA" in said
