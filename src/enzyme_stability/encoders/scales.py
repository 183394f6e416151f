"""Amino-acid property scales and residue classes, each with its published source.

Values are kept as published; every table is ordered like ``AMINO_ACIDS``.
"""

from __future__ import annotations

import numpy as np

from enzyme_stability.sequence import AMINO_ACIDS


def _scale(**values: float) -> np.ndarray:
    return np.array([values[residue] for residue in AMINO_ACIDS], dtype=np.float64)


SCALES: dict[str, np.ndarray] = {
    # Kyte and Doolittle 1982, doi 10.1016/0022-2836(82)90515-0
    "hydropathy": _scale(
        A=1.8, R=-4.5, N=-3.5, D=-3.5, C=2.5, Q=-3.5, E=-3.5, G=-0.4, H=-3.2, I=4.5,
        L=3.8, K=-3.9, M=1.9, F=2.8, P=-1.6, S=-0.8, T=-0.7, W=-0.9, Y=-1.3, V=4.2,
    ),
    # Residue volume in cubic angstrom, Zamyatnin 1972, doi 10.1016/0079-6107(72)90005-3
    "volume": _scale(
        A=88.6, R=173.4, N=114.1, D=111.1, C=108.5, Q=143.8, E=138.4, G=60.1, H=153.2, I=166.7,
        L=166.7, K=168.6, M=162.9, F=189.9, P=112.7, S=89.0, T=116.1, W=227.8, Y=193.6, V=140.0,
    ),
    # Helix propensity in kcal/mol (0 = alanine), Pace and Scholtz 1998, doi 10.1016/S0006-3495(98)77529-0
    "helix_cost": _scale(
        A=0.0, R=0.21, N=0.65, D=0.69, C=0.68, Q=0.39, E=0.40, G=1.0, H=0.61, I=0.41,
        L=0.21, K=0.26, M=0.24, F=0.54, P=3.16, S=0.50, T=0.66, W=0.49, Y=0.53, V=0.61,
    ),
    # Helix, sheet and turn preference, Chou and Fasman 1978, doi 10.1146/annurev.bi.47.070178.001343
    "helix": _scale(
        A=1.42, R=0.98, N=0.67, D=1.01, C=0.70, Q=1.11, E=1.51, G=0.57, H=1.00, I=1.08,
        L=1.21, K=1.16, M=1.45, F=1.13, P=0.57, S=0.77, T=0.83, W=1.08, Y=0.69, V=1.06,
    ),
    "sheet": _scale(
        A=0.83, R=0.93, N=0.89, D=0.54, C=1.19, Q=1.10, E=0.37, G=0.75, H=0.87, I=1.60,
        L=1.30, K=0.74, M=1.05, F=1.38, P=0.55, S=0.75, T=1.19, W=1.37, Y=1.47, V=1.70,
    ),
    "turn": _scale(
        A=0.66, R=0.95, N=1.56, D=1.46, C=1.19, Q=0.98, E=0.74, G=1.56, H=0.95, I=0.47,
        L=0.59, K=1.01, M=0.60, F=0.60, P=1.52, S=1.43, T=0.96, W=0.96, Y=1.14, V=0.50,
    ),
    # Side-chain polarizability, Charton and Charton 1982, doi 10.1016/0022-5193(82)90191-6
    "polarizability": _scale(
        A=0.046, R=0.291, N=0.134, D=0.105, C=0.128, Q=0.180, E=0.151, G=0.0, H=0.230, I=0.186,
        L=0.186, K=0.219, M=0.221, F=0.290, P=0.131, S=0.062, T=0.108, W=0.409, Y=0.298, V=0.140,
    ),
    # Polarity, Grantham 1974, doi 10.1126/science.185.4154.862
    "polarity": _scale(
        A=8.1, R=10.5, N=11.6, D=13.0, C=5.5, Q=10.5, E=12.3, G=9.0, H=10.4, I=5.2,
        L=4.9, K=11.3, M=5.7, F=5.2, P=8.0, S=9.2, T=8.6, W=5.4, Y=6.2, V=5.9,
    ),
    # Average flexibility, Bhaskaran and Ponnuswamy 1988, doi 10.1111/j.1399-3011.1988.tb01258.x
    "flexibility": _scale(
        A=0.357, R=0.529, N=0.463, D=0.511, C=0.346, Q=0.493, E=0.497, G=0.544, H=0.323, I=0.462,
        L=0.365, K=0.466, M=0.295, F=0.314, P=0.509, S=0.507, T=0.444, W=0.305, Y=0.420, V=0.386,
    ),
    # Consensus hydrophobicity, Eisenberg et al. 1984, doi 10.1016/0022-2836(84)90309-7
    "hydrophobicity": _scale(
        A=0.62, R=-2.53, N=-0.78, D=-0.90, C=0.29, Q=-0.85, E=-0.74, G=0.48, H=-0.40, I=1.38,
        L=1.06, K=-1.50, M=0.64, F=1.19, P=0.12, S=-0.18, T=-0.05, W=0.81, Y=0.26, V=1.08,
    ),
}  # fmt: skip

# Formal charge of the side chain near pH 7.
CHARGE = np.array([{"K": 1, "R": 1, "D": -1, "E": -1}.get(a, 0) for a in AMINO_ACIDS], dtype=np.int8)

# pKa of ionisable groups as in EMBOSS (Epk.dat), doi 10.1016/S0168-9525(00)02024-2
PKA_POSITIVE = {"K": 10.8, "R": 12.5, "H": 6.5}
PKA_NEGATIVE = {"D": 3.9, "E": 4.1, "C": 8.5, "Y": 10.1}
PKA_AMINO_TERMINUS = 8.6
PKA_CARBOXYL_TERMINUS = 3.6

# Three residue classes for each of seven properties: Dubchak et al. 1995, doi 10.1073/pnas.92.19.8700,
# as listed by PROFEAT (Li et al. 2006, doi 10.1093/nar/gkl305).
RESIDUE_CLASSES: dict[str, tuple[str, str, str]] = {
    "hydrophobicity": ("RKEDQN", "GASTPHY", "CLVIMFW"),
    "volume": ("GASTPDC", "NVEQIL", "MHKFRYW"),
    "polarity": ("LIFWCMVY", "PATGS", "HQRKNED"),
    "polarizability": ("GASDT", "CPNVEQIL", "KMHFRYW"),
    "charge": ("KR", "ANCQGHILMFPSTWYV", "DE"),
    "secondary_structure": ("EALMQKRH", "VIYCWFT", "GNPSD"),
    "solvent_access": ("ALFCGIVW", "RKQEND", "MSPTHY"),
}


def class_table(classes: tuple[str, ...]) -> np.ndarray:
    """Class number of each amino acid, shape (20,), in ``AMINO_ACIDS`` order."""
    return np.array([next(k for k, c in enumerate(classes) if a in c) for a in AMINO_ACIDS], dtype=np.int8)
