"""Writes docs/results.md from benchmarks/results, so that no figure there is typed by hand.

Run it after the benchmarks; with ``--check`` it only says whether the page is up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from readme_figures import RESULTS, ROOT, accuracy, cell

PAGE = ROOT / "docs" / "results.md"
_HEAD = """# Measured results

Figures of the shipped predictors and of the program, from the files in `benchmarks/results`;
`benchmarks/results_page.py` writes this page from them. Every section says which command prints its figures, and on
which machine they were made. What each script asks, what data it needs and how to read intervals:
[benchmarks](../benchmarks/README.md). Figures in parentheses are 95 % intervals."""


def saved(name: str) -> dict[str, Any]:
    """The figures of a benchmark."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Markdown; the first column is text, the others are figures."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join('-' if each is None else str(each) for each in line)} |" for line in lines)


def made_by(command: str, run: dict[str, Any]) -> str:
    """Where figures come from."""
    machine = run["machine"]
    return f"`{command}` on {run['made']}: {machine['cores']} cores ({machine['cpu']}), Python {machine['python']}."


def tm() -> list[str]:
    """Accuracy of Tm, as in the README."""
    lines = accuracy()
    middle = next(place for place, line in enumerate(lines) if line.startswith("The predictor that ships as default"))
    return [
        "## Accuracy of Tm",
        "`make models` trains the predictors from the public tables and evaluates them; the tables are described in "
        "[data.md](data.md).",
        "\n".join(lines[:middle]).strip(),
        "### The built-in predictor",
        "\n".join(lines[middle:]).strip(),
    ]


def purified() -> list[str]:
    """The predictor on purified enzymes."""
    run = saved("purified_enzymes")
    names = {"without": "", "with_growth_temperature": ", growth temperature given"}
    return [
        "### Purified enzymes",
        made_by("python benchmarks/purified_enzymes.py --table outputs/builtin.parquet", run),
        "The predictor was trained on proteome-wide experiments. Against temperatures of purified enzymes, which are "
        "another quantity:",
        table(
            ("temperature of", "n", "bias (°C)", "MAE (°C)", "Spearman", "90 % intervals hold"),
            [
                (
                    f"{label}{text}",
                    f"{found['n']:,}",
                    cell(found["bias"], 1),
                    cell(found["mae"], 1),
                    cell(found["spearman"], 2),
                    f"{found['coverage']['value']:.0%}",
                )
                for label, groups in run["shift"].items()
                for how, text in names.items()
                if (found := groups["known"].get(how))
            ],
        ),
    ]


def recalibration() -> list[str]:
    """What `calibrate` does with few measurements."""
    run = saved("recalibration")
    rows = [
        (
            f"{name}, {size} measured",
            f"{mean['corrected']} of {run['draws']}",
            mean["did_harm"],
            *(f"{mean['mae'][when]:.2f}" for when in ("before", "after")),
            *(f"{mean['coverage'][when]:.2f}" for when in ("before", "after")),
        )
        for name, case in run["cases"].items()
        for size, mean in ((size, sized["mean"]) for size, sized in case["sizes"].items())
    ]
    return [
        "## Correcting with few measurements",
        made_by("python benchmarks/recalibration.py", run),
        f"Means over {run['draws']} draws of so many measured proteins, judged on the rest; errors in °C, intervals "
        f"asked for {run['coverage_asked']:.0%}:",
        table(
            ("proteins", "corrected", "did harm", "MAE before", "after", "intervals hold, before", "after"),
            rows,
        ),
    ]


def delta_tm() -> list[str]:
    """Change of Tm on substitution."""
    run = saved("delta_tm")
    parts = [
        "## Change of Tm on substitution",
        made_by("python benchmarks/delta_tm.py --database ../shared/data/sequences/pool.fasta.gz --bootstrap 300", run),
        "`strict` is the recipe that ships: relatives of the test proteins are kept from it. `as published` learned "
        "from the tables as they were published. The formula needs the two residues alone. All rows of each table.",
    ]
    for test, first in run["models"]["strict"]["tests"].items():
        trained = [models["tests"][test] for models in run["models"].values() if test in models["tests"]]
        ours = [m for one in trained for m in one["comparison"] if m["kind"] == "ours" and m["rows"] == "all"]
        others = [m for m in first["comparison"] if m["kind"] != "ours" and m["rows"] == "all"]
        rows = [
            (m["method"], m["n"], cell(m["pearson"], 2), cell(m["spearman"], 2), cell(m["auc"], 2))
            for m in (*ours, *others)
        ]
        quantity = "delta Tm" if first["quantity"] == "dTm" else first["quantity"]
        parts += [
            f"### {test}: {first['description']} ({quantity})",
            table(("method", "n", "Pearson", "Spearman", "AUC of stabilising"), rows),
        ]
    return parts


def program_speed() -> list[str]:
    """How fast prediction is."""
    run = saved("speed")
    turns = [
        (f"{title}: {name}", f"{row['median_s']:.2f}", f"{row['peak_mb']:.0f}")
        for title, key in (("cold start", "cold_start"), ("*E. coli* proteome", "proteome"))
        for name, row in run[key]["rows"].items()
    ]
    one_core, stream = run["throughput"], run["stream"]
    rows = [
        (name, f"{row['seconds']:.1f}", f"{row['sequences_per_second']:,.0f}") for name, row in one_core["rows"].items()
    ]
    return [
        "## Speed of prediction",
        made_by("make bench", run),
        table(("", "median seconds", "peak MB"), turns),
        f"{one_core['sequences']:,} proteins on one core:",
        table(("", "seconds", "sequences a second"), rows),
        f"A stream of {stream['proteins']:,} proteins peaks at {stream['peak_mb']:.0f} MB, after a tenth of it at "
        f"{stream['peak_mb_at_a_tenth']:.0f} MB. The base install takes {run['install']['total_mb']:.0f} MB.",
    ]


def service_load() -> list[str]:
    """How much the HTTP service answers."""
    run = saved("service_load")
    rows = [
        (
            f"{name}, {what.replace('_', ' ')}",
            load["connections"],
            f"{load['per_s']:,.0f}",
            f"{load['p50_ms']:.0f}",
            f"{load['p99_ms']:,.0f}",
            load["not_200"] + load["broken_connections"],
        )
        for name, one in run["figures"].items()
        for what in ("peak", "half_of_peak", "overload")
        if (load := one.get(what))
    ]
    memory = [
        f"{name}: {one['memory']['before_mib']:.0f} MiB before and {one['memory']['after_mib']:.0f} MiB after "
        f"{one['memory']['requests']:,} requests."
        for name, one in run["figures"].items()
        if "memory" in one
    ]
    return [
        "## Load on the service",
        made_by("python benchmarks/service_load.py", run),
        "One protein a request, from another process on the same cores. `naive` loads the predictor for each request.",
        table(("", "connections", "requests/s", "median (ms)", "99 % (ms)", "failed"), rows),
        "Memory. " + " ".join(memory),
    ]


def drift() -> list[str]:
    """How often drift alarms."""
    run = saved("drift")
    sizes = list(run["cases"][0]["sizes"])

    def rows(changed: bool) -> list[tuple[str | None, ...]]:
        return [
            (
                f"{case['name']}; {case['compared_with']}",
                *(f"{one['alarm_share']['rule']:.3f}" if one else None for one in case["sizes"].values()),
            )
            for case in run["cases"]
            if case["changed"] is changed
        ]

    columns = ("draws; compared with", *(f"{int(size):,} proteins" for size in sizes))
    return [
        "## Alarms of drift",
        made_by("python benchmarks/drift.py --table outputs/builtin.parquet", run),
        "Share of draws with an alarm where nothing has changed ([monitoring.md](monitoring.md#how-often-it-alarms)):",
        table(columns, rows(changed=False)),
        "and where something has:",
        table(columns, rows(changed=True)),
    ]


def language_models() -> list[str]:
    """Encoder and head training."""
    encoder, heads = saved("encoder_speed"), saved("head_training")
    peak = encoder["bare_product_gflops"]
    return [
        "## Speed of a language model",
        made_by("python benchmarks/encoder_speed.py", encoder),
        f"A model of ProtBERT's shape with random weights, {encoder['layers']} layers, on {encoder['proteins']} "
        f"proteins. Bare matrix products reach {peak['bfloat16']:,.0f} GFLOP/s in bfloat16 and {peak['float32']:,.0f} "
        "in float32.",
        table(
            ("variant", "useful GFLOP/s", "share of the bfloat16 product", "times (a)"),
            [
                (
                    name,
                    f"{r['useful_gflops']:.0f}",
                    f"{r['share_of_bfloat16_product']:.0%}",
                    f"{r['times_usual_loop']:.2f}",
                )
                for name, r in encoder["rows"].items()
            ],
        ),
        "## Training a head",
        made_by("python benchmarks/head_training.py", heads),
        f"{heads['proteins']:,} made-up embeddings {heads['width']:,} wide, batches of {heads['batch_size']}:",
        table(
            ("variant", "times as fast", "validation loss"),
            [(name, f"{r['times_usual']:.2f}", f"{r['validation_loss']:.4f}") for name, r in heads["rows"].items()],
        ),
    ]


def page() -> str:
    """The whole page."""
    sections = (tm, purified, recalibration, delta_tm, program_speed, service_load, drift, language_models)
    return "\n\n".join([_HEAD, *(part for section in sections for part in section())]) + "\n"


def main() -> None:
    """Rewrite or check docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    if parser.parse_args().check:
        fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        sys.exit(0 if fresh else "docs/results.md is out of date: run python benchmarks/results_page.py")
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
