"""Made-up proteins where speed.py looks for public ones: made_up_data.py FOLDER, then speed.py --data FOLDER.

Any letters do, for speed does not ask what a protein does: each of the twenty is as likely, lengths are log-normal
around 300. The same proteins every time.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

from enzyme_stability.sequence import AMINO_ACIDS
from speed import POOL, PROTEOME

PROTEINS = {PROTEOME: 4_000, POOL: 20_000}


def make_up(folder: Path) -> None:
    """Write the two files."""
    random = np.random.default_rng(0)
    letters = np.frombuffer(AMINO_ACIDS.encode(), np.uint8)
    for name, proteins in PROTEINS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / name, "wb", compresslevel=1) as file:
            for place, length in enumerate(random.lognormal(np.log(300), 0.6, proteins).astype(int) + 10):
                file.write(b">p%d\n%s\n" % (place, random.choice(letters, length).tobytes()))


if __name__ == "__main__":
    make_up(Path(sys.argv[1]))
