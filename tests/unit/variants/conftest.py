"""Delta-Tm models that learned from made-up families, and what they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up_families import Families, Nature, write_fasta, write_table

from enzyme_stability.config.delta_tm import ExpectedProfileSettings
from enzyme_stability.variant import Variant
from enzyme_stability.variants.expected_profile_training import train_expected_profile
from enzyme_stability.variants.model import DeltaTmModel


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FASTA file of thirty families of five."""
    nature = Nature(5)
    founders = [nature.protein(70) for _ in range(30)]
    chains = [nature.relative(founder) for founder in founders for _ in range(5)]
    return write_fasta(tmp_path_factory.mktemp("unlabelled") / "proteins.fasta", chains)


@pytest.fixture(scope="session")
def profile_settings() -> ExpectedProfileSettings:
    quick = {"proteins": 140, "least_relatives": 2, "width": 16, "epochs": 3, "batch": 64, "validation_share": 0.3}
    return ExpectedProfileSettings.model_validate(quick)


@pytest.fixture(scope="session")
def profile_network(
    unlabelled: Path, profile_settings: ExpectedProfileSettings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A network that foretells profiles, and the figures of its training."""
    path = tmp_path_factory.mktemp("network") / "expected_profile.onnx"
    return path, train_expected_profile(unlabelled, profile_settings, path, lambda _: None, 1)


@pytest.fixture(scope="session")
def families(profile_network: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Families:
    folder, nature = tmp_path_factory.mktemp("families"), Nature(8)
    founders = [nature.protein(90) for _ in range(6)]
    wild_types = tuple(chain for founder in founders for chain in (founder, nature.relative(founder)))
    write_table(folder / "table.csv", [row for chain in wild_types for row in nature.measured(chain, 25)])
    tests = (nature.relative(founders[5]), nature.protein(90))
    write_table(folder / "test.csv", [row for chain in tests for row in nature.measured(chain, 6)])
    (folder / "variants").mkdir()
    ddg = [row for chain in (*wild_types[:4], nature.protein(90)) for row in nature.measured(chain, 20)]
    lines = [f"{chain},{Variant.parse(text).apply(chain)},{value / 3:.3f}\n" for chain, text, value in ddg]
    (folder / "variants" / "S8754.csv").write_text("wt_seq,mut_seq,ddG\n" + "".join(lines))
    relatives = [nature.relative(founder) for founder in founders[:4] for _ in range(6)]
    database = write_fasta(folder / "database.fasta", relatives)
    return Families(folder, wild_types, database, profile_network[0])


@pytest.fixture(scope="session")
def delta_tm_model(families: Families, tmp_path_factory: pytest.TempPathFactory) -> DeltaTmModel:
    """Learned with relatives, those of the test table left out."""
    held_out = (str(families.folder / "test.csv"),)
    return families.train(tmp_path_factory.mktemp("delta_tm"), families.database, held_out=held_out)


@pytest.fixture(scope="session")
def plain_delta_tm_model(families: Families, tmp_path_factory: pytest.TempPathFactory) -> DeltaTmModel:
    """Learned from sequences alone, ddG along with delta Tm."""
    return families.train(tmp_path_factory.mktemp("plain_delta_tm"), auxiliary=("S8754",))
