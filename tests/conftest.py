"""What several test folders share: where the public tables are, a predictor, and sequences that stress the code."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from enzyme_stability import Predictor
from enzyme_stability.data.mmseqs import find_mmseqs
from enzyme_stability.errors import MissingDependencyError
from enzyme_stability.sequence import AMINO_ACIDS

REPOSITORY = Path(__file__).parents[1]

# Read where gcsfs is first imported: else it asks a service that the emulator of Cloud Storage has not, for a minute.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

# The suite says the same thing twice running; a busy machine is no failure.
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


def pytest_make_parametrize_id(val: object) -> str | None:
    """A name without the time that gzip writes: processes that collect tests a second apart must agree on it."""
    return "gzip" if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") else None


@pytest.fixture(scope="session")
def examples() -> Path:
    """FASTA file with a dozen real enzymes."""
    return REPOSITORY / "examples" / "enzymes.fasta"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the public tables, which do not ship with the repository."""
    root = Path(os.environ.get("ENZYME_STABILITY_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"the public tables are not at {root}; set ENZYME_STABILITY_DATA to their folder")
    return root


@pytest.fixture(scope="session")
def mmseqs() -> None:
    """The program that finds homologues, which is not to be had by pip on Windows."""
    try:
        find_mmseqs()
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def unmeasured() -> dict[str, str]:
    """Environment of a process that may not write files as long as it likes: coverage would leave a damaged one."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


@pytest.fixture(scope="session")
def builtin() -> Predictor:
    return Predictor.builtin(threads=1)


@pytest.fixture(scope="session")
def odd_sequences() -> list[str]:
    """Several hundred chains of 10 to 700 residues, among them every homopolymer and chains of two or three letters."""
    choose = random.Random(7)
    sequences = [letter * length for letter in AMINO_ACIDS for length in (10, 13, 33)]
    for letters in (2, 3, 5, 20, 20, 20):
        for length in (10, 11, 12, 18, 19, 29, 30, 31, 64, 700):
            for _ in range(6):
                alphabet = choose.sample(AMINO_ACIDS, letters)
                sequences.append("".join(choose.choices(alphabet, k=length)))
    choose.shuffle(sequences)
    return sequences


@pytest.fixture(scope="session")
def made_up_proteins() -> pd.DataFrame:
    """Proteins in clusters of three whose Tm follows from their composition; every fifth is of an unknown organism."""
    random = np.random.default_rng(23)
    hot = np.array([1 + 2 * (letter in "EKIVR") for letter in AMINO_ACIDS], dtype=float)
    cold = np.array([1 + 2 * (letter in "NQSTH") for letter in AMINO_ACIDS], dtype=float)
    heat = random.uniform(0, 1, 480)
    rows = []
    for k, h in enumerate(heat):
        weights = h * hot / hot.sum() + (1 - h) * cold / cold.sum()
        sequence = "".join(random.choice(list(AMINO_ACIDS), int(random.integers(80, 250)), p=weights))
        growth = 20 + 55 * h + random.normal(0, 3) if k % 5 else np.nan
        rows.append((f"protein_{k}", sequence, 40 + 40 * h + random.normal(0, 1.5), growth, k // 3))
    columns = ["id", "sequence", "tm_celsius", "growth_temperature_celsius", "cluster"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="session")
def quick_settings() -> dict[str, Any]:
    """A training configuration that takes a second."""
    return {
        "run_name": "quick",
        "description": "Made-up proteins.",
        "output": "quick",
        "data": {"path": "table.csv"},
        "split": {"calibration_share": 0.3, "folds": 0},
        "encoder": {"kind": "composition", "blocks": ["amino_acids", "whole_chain", "termini"]},
        "head": {
            "kind": "stacked",
            "thresholds_celsius": [50, 60, 70],
            "inner_folds": 3,
            "ridges": [
                {"block_weights": {"amino_acids": 2, "termini": 1}, "landmarks": 60},
                {"block_weights": {"amino_acids": 1, "whole_chain": 1}, "landmarks": 60},
            ],
            "trees": {"trees": 40, "learning_rate": 0.1, "leaves": 6, "minimum_leaf_size": 10},
        },
        "trainer": {},
        "tracking": {},
        "interval": {},
        "domain": {},
    }
