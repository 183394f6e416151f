"""Writes the table of figures in README.md from benchmarks/results, so that no figure there is typed by hand.

Run it after ``make models`` and ``make bench``; with ``--check`` it only says whether the table is up to date.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"


def evaluation(model: str, name: str) -> dict:
    """A saved evaluation."""
    return json.loads((RESULTS / model / f"{name}.json").read_text(encoding="utf-8"))


def cell(figure: dict | None, digits: int) -> str:
    """A figure with its 95 % interval."""
    if figure is None:
        return "-"
    value, low, high = (f"{figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def row(label: str, metrics: dict) -> str:
    """One line of the accuracy table."""
    figures = [cell(metrics[k], d) for k, d in (("r2", 3), ("mae", 2), ("spearman", 3), ("auc_60", 3))]
    return f"| {label} | {' | '.join(figures)} |"


def accuracy() -> list[str]:
    """Tm50Test beside the published predictors, and the folds without relatives."""
    test, given = evaluation("tm50", "tm50_test"), evaluation("tm50", "tm50_test_with_growth_temperature")
    folds = evaluation("tm50", "held_out_folds")
    lines = [
        f"Tm50Test, {test['metrics']['n']:,} proteins, 95 % bootstrap intervals; `tm50` learned from Tm50Train alone:",
        "",
        "| | R² | MAE (°C) | Spearman | AUC (Tm ≥ 60 °C) |",
        "|---|---|---|---|---|",
        row("**enzyme-stability**, sequence alone", test["metrics"]),
        row("**enzyme-stability**, growth temperature given", given["metrics"]),
    ]
    lines += [row(f"{name}, published", peer["metrics"]) for name, peer in test["peers"].items()]
    lines += [row(f"baseline: {name.replace('_', ' ')}", b["metrics"]) for name, b in test["baselines"].items()]
    lines.append(
        row(f"`tm50` on folds of Tm50Train without relatives (n = {folds['metrics']['n']:,})", folds["metrics"])
    )
    overall = folds["intervals"]["overall"]
    bands = folds["intervals"]["bands"]
    by_band = ", ".join(f"{band} °C: {group['coverage']['value']:.1%}" for band, group in bands.items() if group)
    lines += [
        "",
        f"Intervals asked for 90 % cover {overall['coverage']['value']:.1%} on the folds without relatives "
        f"({by_band}), {overall['mean_width_celsius']:.1f} °C wide on average.",
        "",
        "The predictor that ships as default, `builtin`, covers the full range; every protein near a test protein was "
        "kept from it:",
        "",
        "| test table | n | R² | MAE (°C) | Spearman | R² within organisms | Spearman within organisms |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted((RESULTS / "builtin").glob("*.json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        if one["source"].get("label") != "Tm":
            continue
        m, within = one["metrics"], one["within_organism"]
        inside = [cell(within["r2"], 2), cell(within["mean_spearman"], 2)] if within else ["-", "-"]
        figures = [cell(m["r2"], 2), cell(m["mae"], 2), cell(m["spearman"], 2), *inside]
        lines.append(f"| {one['name'].replace('_', ' ')} | {m['n']:,} | {' | '.join(figures)} |")
    return lines


def speed() -> list[str]:
    """How fast the built-in predictor answers, and on what."""
    run = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))
    cold, proteome, stream = run["cold_start"]["rows"], run["proteome"], run["stream"]
    start, whole = cold["predict 12 enzymes"]["median_s"], proteome["rows"]["predict"]
    imports = cold["import numpy, onnxruntime"]["median_s"]
    reading = proteome["rows"]["read and count residues"]["median_s"]
    one_core = run["throughput"]["rows"]
    limit = one_core["read and count residues (whole program)"]["sequences_per_second"]
    slower = limit / one_core["predict (whole program)"]["sequences_per_second"]
    growth = stream["peak_mb"] / stream["peak_mb_at_a_tenth"]
    return [
        "",
        f"Speed of `builtin` on {run['machine']['cores']} cores ({run['machine']['cpu']}), as `make bench` prints it: "
        "predicting the examples, start of the program included, takes "
        f"{start / imports:.1f} times as long as importing NumPy and ONNX Runtime alone; the *E. coli* proteome "
        f"({proteome['proteins']:,} proteins, {whole['peak_mb']:.0f} MB) {whole['median_s'] / reading:.1f} times "
        f"as long as reading it and counting residues; 100,000 proteins on one core {slower:.0f} times. A stream of "
        f"{stream['proteins']:,} proteins peaks at {stream['peak_mb']:.0f} MB, {growth:.2f} times the peak after a "
        f"tenth of it. The base install takes {run['install']['total_mb']:.0f} MB.",
    ]


def updated(text: str) -> str:
    """README with a fresh table."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + "\n".join([BEGIN, *accuracy(), *speed(), END]) + after


def main() -> None:
    """Rewrite or check README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the table is out of date")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    fresh = updated(text)
    if check:
        sys.exit(0 if fresh == text else "README.md is out of date: run python benchmarks/readme_figures.py")
    readme.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
