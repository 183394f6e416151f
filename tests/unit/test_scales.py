from __future__ import annotations

import numpy as np
import pytest

from enzyme_stability.encoders import scales
from enzyme_stability.sequence import AMINO_ACIDS

# Read off the publications named in the module, extremes and a middle value of each.
PUBLISHED = {
    "hydropathy": {"I": 4.5, "V": 4.2, "R": -4.5, "K": -3.9, "G": -0.4, "W": -0.9},
    "volume": {"G": 60.1, "A": 88.6, "W": 227.8, "L": 166.7, "R": 173.4},
    "helix_cost": {"A": 0.0, "G": 1.0, "P": 3.16, "L": 0.21, "V": 0.61},
    "helix": {"E": 1.51, "M": 1.45, "A": 1.42, "P": 0.57, "G": 0.57},
    "sheet": {"V": 1.70, "I": 1.60, "Y": 1.47, "E": 0.37, "D": 0.54},
    "turn": {"N": 1.56, "G": 1.56, "P": 1.52, "I": 0.47, "V": 0.50},
    "polarizability": {"G": 0.0, "W": 0.409, "Y": 0.298, "A": 0.046},
    "polarity": {"D": 13.0, "E": 12.3, "L": 4.9, "I": 5.2, "A": 8.1},
    "flexibility": {"G": 0.544, "R": 0.529, "M": 0.295, "W": 0.305},
    "hydrophobicity": {"I": 1.38, "F": 1.19, "R": -2.53, "K": -1.5, "P": 0.12},
}


@pytest.mark.parametrize("name", scales.SCALES)
def test_scale_holds_the_published_values(name: str) -> None:
    for residue, value in PUBLISHED[name].items():
        assert scales.SCALES[name][AMINO_ACIDS.index(residue)] == value, residue


@pytest.mark.parametrize("name", scales.SCALES)
def test_scale_has_a_finite_value_for_each_residue_exact_in_thousandths(name: str) -> None:
    values = scales.SCALES[name]
    assert values.shape == (20,)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values * 1000, np.rint(values * 1000), atol=1e-9)


def test_scales_sum_to_the_published_totals() -> None:
    # A checksum against one mistyped residue; the Eisenberg consensus scale is normalised to mean 0.
    assert scales.SCALES["hydropathy"].sum() == pytest.approx(-9.8)
    assert scales.SCALES["hydrophobicity"].mean() == pytest.approx(0, abs=0.005)
    # Chou and Fasman normalised each preference to about 1 over their proteins.
    for name in ("helix", "sheet", "turn"):
        assert scales.SCALES[name].mean() == pytest.approx(1, abs=0.03)


def test_charge_is_that_of_the_side_chains_near_neutral() -> None:
    charges = dict(zip(AMINO_ACIDS, scales.CHARGE.tolist(), strict=True))
    assert {residue: charge for residue, charge in charges.items() if charge} == {"D": -1, "E": -1, "K": 1, "R": 1}


def test_acidity_constants_are_those_of_emboss() -> None:
    assert scales.PKA_POSITIVE == {"K": 10.8, "R": 12.5, "H": 6.5}
    assert scales.PKA_NEGATIVE == {"D": 3.9, "E": 4.1, "C": 8.5, "Y": 10.1}
    assert (scales.PKA_AMINO_TERMINUS, scales.PKA_CARBOXYL_TERMINUS) == (8.6, 3.6)


@pytest.mark.parametrize("name", scales.RESIDUE_CLASSES)
def test_residue_classes_partition_the_alphabet(name: str) -> None:
    classes = scales.RESIDUE_CLASSES[name]
    assert len(classes) == 3
    assert sorted("".join(classes)) == sorted(AMINO_ACIDS)


def test_residue_classes_are_those_of_dubchak() -> None:
    # Hydrophobicity: polar, neutral, hydrophobic; charge: positive, neutral, negative; structure: helix, strand, coil.
    assert set(scales.RESIDUE_CLASSES["hydrophobicity"][2]) == set("CLVIMFW")
    assert set(scales.RESIDUE_CLASSES["charge"][0]) == set("KR")
    assert set(scales.RESIDUE_CLASSES["charge"][2]) == set("DE")
    assert set(scales.RESIDUE_CLASSES["secondary_structure"][1]) == set("VIYCWFT")
    assert set(scales.RESIDUE_CLASSES["solvent_access"][1]) == set("RKQEND")  # some listings misprint P for R


def test_class_table_is_in_alphabet_order() -> None:
    table = scales.class_table(("ACDEFGHIKL", "MNPQR", "STVWY"))
    assert table.tolist() == [0] * 10 + [1] * 5 + [2] * 5
