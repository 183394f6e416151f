"""How fast a ProtBERT-sized language model embeds proteins: the usual loops, ours, and what the processor could do.

Prints two tables and writes encoder_speed.json:

- (a) the usual loop, one sequence at a time in float32 with Transformers' defaults; (b) padded batches of eight, in
  the order of the file and sorted by length; (c) ours, in float32 and in the precision it chooses; each beside a bare
  matrix product of the model's shape in bfloat16 and float32. Variants take turns; medians over the rounds. 'Useful'
  operations are those of the residues and special tokens, padding not counted.
- the memory of a process that embeds with (c): after loading, and at its peak for one batch's worth of proteins, for
  five times as many, and for one protein of 5,000 residues.

Random weights of ProtBERT's size (30 layers, 1,024 wide, 420 million parameters), lengths drawn from Tm50Train. On a
GPU (--device cuda) more proteins are embedded, and proteins a second are printed too. Needs the extra 'dev' and tm/.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import transformers
import typer

from enzyme_stability.encoders.language_model import LanguageModel, best_precision
from enzyme_stability.sequence import AMINO_ACIDS
from processes import Memory
from reporting import DATA, RESULTS, Data, Results, Smoke, data_file, keep, machine, number, run, show

TABLE = "tm/tm50/Tm50Train.csv"
WIDTH, INNER, HEADS, LAYERS = 1024, 4096, 16, 30
LONG = 5000
_SEED = 0


def main(
    data: Data = DATA,
    results: Results = RESULTS,
    smoke: Smoke = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    proteins: Annotated[int, typer.Option(min=1, help="Proteins to embed; more suit a GPU.")] = 12,
    rounds: Annotated[int, typer.Option(min=1, help="Times that every variant has its turn.")] = 3,
) -> None:
    """Time the variants on one sample of proteins."""
    facts = machine() | {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
    layers = 2 if smoke else LAYERS
    rounds, proteins = (1, 4) if smoke else (rounds, proteins)
    sequences = sample(data_file(data, TABLE), proteins)
    work = sum(operations(len(sequence) + 2, layers) for sequence in sequences)
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_model(Path(scratch), layers)
        variants = _variants(folder, sequences, device)
        bare = {dtype: [] for dtype in ("bfloat16", "float32")}
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(rounds):
            for dtype, rates in bare.items():
                rates.append(bare_rate(dtype, device))
            for name, embed in variants.items():
                seconds[name].append(_seconds(embed, device))
        memory = {} if device == "cuda" else _memory(folder, sequences)
    peak = {dtype: statistics.median(rates) for dtype, rates in bare.items()}
    usual = statistics.median(seconds["(a) one by one, float32"])
    rows = {}
    for name, times in seconds.items():
        took = statistics.median(times)
        rows[name] = {
            "useful_gflops": work / took / 1e9,
            "share_of_bfloat16_product": work / took / 1e9 / peak["bfloat16"],
            "times_usual_loop": usual / took,
        }
        if device == "cuda":
            rows[name]["proteins_per_second"] = len(sequences) / took
    content = {
        "proteins": len(sequences),
        "residues": sum(map(len, sequences)),
        "layers": layers,
        "rounds": rounds,
        "bare_product_gflops": peak,
        "rows": rows,
        "memory_mb": memory,
    }
    kept = keep("encoder_speed" + "_gpu" * (device == "cuda"), results, content, facts, smoke=smoke)
    _print(content)
    print(f"\nfigures are in {kept.name}")


def sample(table: Path, count: int) -> list[str]:
    """Random proteins whose lengths are drawn from the table."""
    lengths = pd.read_csv(table, encoding="utf-8-sig")["sequence"].str.len().to_numpy()
    random = np.random.default_rng(_SEED)
    return ["".join(random.choice(list(AMINO_ACIDS), length)) for length in random.choice(lengths, count)]


def operations(tokens: int, layers: int) -> int:
    """Floating-point operations of a sequence's matrix products: four square, two of the inner layer, attention."""
    products = 2 * tokens * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    return layers * (products + 4 * tokens * tokens * WIDTH)


def save_model(folder: Path, layers: int) -> Path:
    """A model of ProtBERT's shape with random weights, saved as the hub keeps it."""
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=40_000,
    )
    torch.manual_seed(_SEED)
    transformers.BertModel(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"LAGVESIKRDTPNQFYMHCWXUBZO"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    settings = {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def bare_rate(dtype: str, device: str) -> float:
    """Rate of a matrix product of the inner layer's shape, GFLOP/s: median of several."""
    rows = 1024 if device == "cpu" else 16_384
    left = torch.randn(rows, WIDTH, device=device).to(getattr(torch, dtype))
    right = torch.randn(INNER, WIDTH, device=device).to(getattr(torch, dtype))
    times = [_seconds(lambda: torch.nn.functional.linear(left, right), device) for _ in range(15)]
    return 2 * rows * WIDTH * INNER / statistics.median(times[5:]) / 1e9


def _seconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _variants(folder: Path, sequences: list[str], device: str) -> dict[str, Callable[[], object]]:
    tokeniser = transformers.AutoTokenizer.from_pretrained(folder)
    usual = transformers.AutoModel.from_pretrained(folder).eval().to(device)
    ordered = sorted(sequences, key=len)

    def loop() -> None:
        with torch.no_grad():
            for sequence in sequences:
                inputs = tokeniser(" ".join(sequence), return_tensors="pt").to(device)
                usual(**inputs).last_hidden_state[0, 1:-1].mean(dim=0)

    def padded(rows: list[str], size: int = 8) -> None:
        with torch.no_grad():
            for start in range(0, len(rows), size):
                batch = [" ".join(sequence) for sequence in rows[start : start + size]]
                inputs = tokeniser(batch, return_tensors="pt", padding=True).to(device)
                mask = inputs["attention_mask"][..., None]
                (usual(**inputs).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)

    def ours(model: LanguageModel) -> Callable[[], object]:
        return lambda: list(model.embed(sequences))

    chosen = best_precision(device, "auto")
    variants = {
        "(a) one by one, float32": loop,
        "(b) padded batches of 8, float32": lambda: padded(sequences),
        "(b) the same, sorted by length": lambda: padded(ordered),
        "(c) ours, float32": ours(LanguageModel(folder, precision="float32", device=device)),
    }
    if chosen != "float32":
        variants[f"(c) ours, {chosen}"] = ours(LanguageModel(folder, device=device))
    return variants


def _memory(folder: Path, sequences: list[str]) -> dict[str, float]:
    """Peak resident memory of processes that embed, MB."""
    length = int(np.median([len(sequence) for sequence in sequences]))
    cases = {"loaded": [10], "few": [length] * 4, "five_times_as_many": [length] * 20, "one_of_5000": [LONG]}
    found = {}
    for name, lengths in cases.items():
        code = (
            "import sys; from pathlib import Path; from enzyme_stability.encoders.language_model import LanguageModel; "
            f"model = LanguageModel(Path(sys.argv[1])); list(model.embed(['M' * n for n in {lengths}]))"
        )
        with subprocess.Popen([sys.executable, "-c", code, str(folder)]) as process, Memory(process.pid) as memory:
            process.wait()
        found[name] = memory.peak_mb
    return found


def _print(content: dict[str, Any]) -> None:
    peak = content["bare_product_gflops"]
    show(
        f"{content['proteins']} proteins, {content['residues']:,} residues, {content['layers']} layers; bare products: "
        f"bfloat16 {peak['bfloat16']:,.0f}, float32 {peak['float32']:,.0f} GFLOP/s",
        ("variant", "useful GFLOP/s", "share of bfloat16 product", "times (a)", "proteins/s"),
        (
            (
                name,
                number(row["useful_gflops"], 0),
                f"{row['share_of_bfloat16_product']:.0%}",
                number(row["times_usual_loop"], 2),
                number(row.get("proteins_per_second"), 0),
            )
            for name, row in content["rows"].items()
        ),
    )
    if content["memory_mb"]:
        show(
            "peak memory, MB",
            ("case", "MB"),
            ((k.replace("_", " "), number(v, 0)) for k, v in content["memory_mb"].items()),
        )


if __name__ == "__main__":
    run(main)
