"""Relatives of a protein, residue by residue: read from an alignment, or found in a database.

A row is a protein, a column a residue of the wild type; what a relative has in between is not kept.
"""

from __future__ import annotations

import io
import tempfile
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from enzyme_stability.data.mmseqs import link_database, open_unpacked, run_mmseqs, write_numbered
from enzyme_stability.data.readers import read_records
from enzyme_stability.errors import ConfigError, DataError, SequenceError
from enzyme_stability.sequence import AMINO_ACIDS, SUBSTITUTED, UNKNOWN, Record, clean_sequence

Codes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]

GAP = 20
"""Code where a relative has no residue."""

NONSTANDARD = 21
"""Code of a residue that is unknown, or none of the standard twenty."""

LEAST_IDENTITY = 0.9
"""Share of the aligned residues in which the first row of an alignment may stand for the wild type."""

LEAST_ALIGNED = 0.5
"""Share of the wild type that has to align with the first row to that end."""

_NO_RESIDUE = 255
_GAPS = b"-.*"  # a stop codon is no residue either
_INSERTIONS = ascii_lowercase.encode() + b"."
_BLANKS = b" \t\r\n\v\f\0"  # MMseqs2 ends an a3m with a zero
_ANNOTATIONS = {"aa_dssp", "sa_dssp", "ss_conf", "ss_dssp", "ss_pred"}  # rows of an a3m by HH-suite that are no protein
_LETTERS = np.array([*AMINO_ACIDS, "X", "X"])
_MOST_CHARACTERS = 500_000_000  # of a file; reading it takes twice as many bytes
_MOST_PAIRS = 150_000_000  # of residues that are compared to align two proteins; each takes two bytes
_HEAD_BYTES = 4096
_SMALL_BYTES = 10**6  # of a database: up to that, comparing every protein takes less time than looking for shared seeds


def _code_of_each_character() -> Codes:
    known = {residue: code for code, residue in enumerate(AMINO_ACIDS)}
    known |= {residue: known[closest] for residue, closest in SUBSTITUTED.items()}
    known |= dict.fromkeys(UNKNOWN, NONSTANDARD) | dict.fromkeys(_GAPS.decode(), GAP)
    codes = np.full(256, _NO_RESIDUE, dtype=np.uint8)
    for character, code in known.items():
        codes[[ord(character), ord(character.lower())]] = code
    return codes


_CODE = _code_of_each_character()
_TO_CODES = _CODE.tobytes()


@dataclass(frozen=True)
class Alignment:
    """A protein and its relatives.

    Attributes:
        rows: Shape (n, L), the wild type first: the place of each residue in ``AMINO_ACIDS``, ``GAP`` or
            ``NONSTANDARD``. ``U`` and ``O`` count as ``C`` and ``K``, as the residue policy has it.
        left_out: Records of the file that could not be used, each with the reason.
    """

    rows: Codes
    left_out: list[str] = field(default_factory=list)


class _Row(NamedTuple):
    """A row as it stands in the file."""

    name: str
    text: bytes


class _Correspondence(NamedTuple):
    """How one protein aligns with the wild type: place of its residue for each of the wild type, -1 for none."""

    places: Places
    identical: int

    @property
    def aligned(self) -> int:
        return int(np.count_nonzero(self.places >= 0))

    @property
    def close(self) -> bool:
        enough = self.aligned >= LEAST_ALIGNED * len(self.places)
        return enough and self.identical >= LEAST_IDENTITY * self.aligned


def read_alignment(path: str | Path, wild_type: str) -> Alignment:
    """Read an alignment in a3m, aligned FASTA or Stockholm, plain or gzip-compressed; the format is found by content.

    Where more rows agree in length without their lower-case letters and ``.`` than with them, these are insertions, as
    in a3m. The wild type is the row that equals it, gaps removed; else the first row, where it is close enough
    (``LEAST_IDENTITY``, ``LEAST_ALIGNED``). Columns in which the wild type has no residue are dropped. Rows that do not
    fit are left out.

    Args:
        path: The file.
        wild_type: Residues of the protein, ``L`` of them; ``X`` where one is unknown.

    Returns:
        The wild type as given, then the other rows in their order. A first row that stands for the wild type with
        other residues than it remains as a relative.

    Raises:
        SequenceError: The wild type is unusable.
        DataError: The file is missing, damaged, too large or no alignment, or no row is the wild type; the message
            says how alike the closest is.
    """
    path = Path(path)
    chain = _encode(wild_type)
    rows, left_out = _read_rows(path)
    inserted = _INSERTIONS if _has_insertions(rows) else b""
    own, columns, equal = _find_wild_type(path, rows, chain, inserted)
    width = len(rows[own].text.translate(None, inserted))
    aligned = np.empty((len(rows) + 1, len(chain)), dtype=np.uint8)
    aligned[0] = chain
    used, misfits = 1, 0
    for number, (name, text) in enumerate(rows):
        characters = text.translate(None, inserted)
        codes = characters.translate(_TO_CODES)
        if len(codes) != width:
            misfits += 1
            left_out.append(f"{name}: {len(codes)} columns, and the row of the wild type has {width}")
        elif (place := codes.find(_NO_RESIDUE)) >= 0:
            left_out.append(f"{name}: {chr(characters[place])!r} in column {place + 1} is not an amino acid")
        elif number != own or not equal:
            # one gap more, for the residues of the wild type that have no column: their place is -1
            aligned[used] = np.frombuffer(codes + bytes([GAP]), dtype=np.uint8)[columns]
            used += 1
    if misfits > len(rows) / 2:
        raise DataError(f"{path} is no alignment: {misfits} of {len(rows)} rows are not as long as the wild type's")
    return Alignment(aligned[:used], left_out)


def search_relatives(
    wild_type: str,
    database: str | Path,
    *,
    threads: int = 0,
    max_relatives: int = 5000,
    iterations: int = 2,
    sensitivity: float | None = None,
) -> Alignment:
    """Find the relatives of one protein; as ``search_relatives_of``."""
    (found,) = search_relatives_of(
        [wild_type],
        database,
        threads=threads,
        max_relatives=max_relatives,
        iterations=iterations,
        sensitivity=sensitivity,
    )
    return found


def search_relatives_of(
    sequences: Sequence[str],
    database: str | Path,
    *,
    threads: int = 0,
    max_relatives: int = 5000,
    iterations: int = 2,
    sensitivity: float | None = None,
) -> list[Alignment]:
    """Find the relatives of each protein in one run of MMseqs2, with an E-value of 0.001 or less.

    Relatives whose aligned parts are equal are one row.

    Args:
        sequences: Residues of the proteins; ``X`` where one is unknown.
        database: FASTA file of proteins, plain or gzip-compressed.
        threads: Processor threads; all with 0.
        max_relatives: Most relatives of one protein; those found first have the lowest E-values.
        iterations: Rounds of the search; from the second on, with the profile of what was found before.
        sensitivity: With None, every protein of the database is compared, which finds the most, and is also the
            quickest for up to some fifty proteins. With 1 (quick) to 7.5 (thorough), only those that share
            seeds, unless there are so few that comparing all is the quicker way.

    Returns:
        One alignment a sequence, in order; where nothing is found it holds the wild type alone.

    Raises:
        SequenceError: A sequence is unusable; the message gives its place, counted from 1.
        ConfigError: ``max_relatives`` is less than 1.
        DataError: The database is missing, damaged or not FASTA, or MMseqs2 failed.
        MissingDependencyError: MMseqs2 is not installed.
    """
    if max_relatives < 1:
        raise ConfigError(f"at most {max_relatives} relatives leaves none; give 1 or more")
    chains = []
    for place, text in enumerate(sequences, start=1):
        try:
            chains.append(clean_sequence(text).chain)
        except SequenceError as error:
            raise SequenceError(f"sequence {place}: {error}") from error
    if not chains:
        return []
    distinct = list(dict.fromkeys(chains))
    settings: dict[str, object] = {
        "--format-output": "query,qstart,qaln,taln",
        "--num-iterations": iterations,
        "--max-seqs": max_relatives,
        "--dbtype": 1,  # else a protein of A, C, G and T alone is taken for DNA
    }
    try:
        with tempfile.TemporaryDirectory(prefix="enzyme-stability-") as name:
            queries, hits, scratch = (Path(name, part) for part in ("queries.fasta", "hits.tsv", "tmp"))
            targets = link_database(Path(database), Path(name))
            write_numbered(queries, distinct)
            compare_all = sensitivity is None or targets.stat().st_size < _SMALL_BYTES
            settings |= {"--prefilter-mode": 1} if compare_all else {"-s": sensitivity}
            run_mmseqs("easy-search", [queries, targets, hits, scratch], settings, threads)
            found = dict(zip(distinct, _assemble(distinct, hits, max_relatives), strict=True))
    except OSError as error:
        folder = tempfile.gettempdir()
        raise DataError(f"the search in {database} broke off: {error}; is {folder} full or read-only?") from error
    return [found[chain] for chain in chains]


def _encode(wild_type: str) -> Codes:
    return _CODE[np.frombuffer(clean_sequence(wild_type).chain.encode("ascii"), dtype=np.uint8)]


def _assemble(chains: Sequence[str], hits: Path, most: int) -> Iterator[Alignment]:
    """The rows of each protein: itself, and its hits with the residues that face its own."""
    rows = [{_encode(chain).tobytes(): None} for chain in chains]  # dictionaries, to merge what is equal
    with hits.open("rb") as lines:
        for line in lines:
            query, start, query_text, text = line.rstrip(b"\n").split(b"\t")
            own = rows[int(query)]
            if len(own) > most:
                continue
            facing = np.frombuffer(query_text, dtype=np.uint8) != ord("-")
            residues = _CODE[np.frombuffer(text, dtype=np.uint8)[facing]]
            row = np.full(len(chains[int(query)]), GAP, dtype=np.uint8)
            row[int(start) - 1 :][: len(residues)] = np.where(residues == _NO_RESIDUE, NONSTANDARD, residues)
            own[row.tobytes()] = None
    for chain, own in zip(chains, rows, strict=True):
        yield Alignment(np.frombuffer(b"".join(own), dtype=np.uint8).reshape(len(own), len(chain)))


def _read_rows(path: Path) -> tuple[list[_Row], list[str]]:
    """The rows of an alignment, and the records without one."""
    rows: list[_Row] = []
    left_out: list[str] = []
    characters = 0
    for record in _stockholm(path) if _is_stockholm(path) else read_records(path):
        text = record.sequence.encode("ascii", errors="replace").translate(None, _BLANKS)
        problem = "an annotation, no protein" if record.id in _ANNOTATIONS else record.problem
        if problem or not text:
            left_out.append(f"{record.id}: {problem or 'no sequence'}")
            continue
        rows.append(_Row(record.id, text))
        characters += len(text)
        if characters > _MOST_CHARACTERS:
            raise DataError(f"{path} holds more than {_MOST_CHARACTERS:,} characters; keep fewer of its rows")
    if not rows:
        raise DataError(f"{path}: no row can be read" + (f"; {left_out[0]}" if left_out else ""))
    return rows, left_out


def _is_stockholm(path: Path) -> bool:
    try:
        with open_unpacked(path) as stream:
            return stream.read(_HEAD_BYTES).removeprefix(BOM_UTF8).lstrip().startswith(b"# STOCKHOLM")
    except (OSError, ValueError, EOFError, zlib.error):
        return False  # the reader of records says what is wrong


def _stockholm(path: Path) -> Iterator[Record]:
    from Bio import AlignIO

    try:
        with open_unpacked(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", errors="replace") as lines:
            alignments = list(AlignIO.parse(lines, "stockholm"))  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError, EOFError, AssertionError, zlib.error) as error:
        raise DataError(f"{path}: the Stockholm data is damaged: {error or 'there is text after its end'}") from error
    if len(alignments) != 1:
        raise DataError(f"{path} holds {len(alignments)} alignments; it has to be the one that the wild type is in")
    for record in alignments[0]:
        yield Record(record.id, str(record.seq))


def _has_insertions(rows: Sequence[_Row]) -> bool:
    with_them = Counter(len(row.text) for row in rows)
    without = Counter(length for row in rows if (length := len(row.text.translate(None, _INSERTIONS))))
    return max(without.values(), default=0) > max(with_them.values())


def _find_wild_type(path: Path, rows: Sequence[_Row], chain: Codes, inserted: bytes) -> tuple[int, Places, bool]:
    """Which row is the wild type, the column of each of its residues (-1 for none), and whether all are the same."""
    wanted = chain.tobytes()
    for number, row in enumerate(rows):
        if row.text.translate(_TO_CODES, _GAPS) == wanted:
            return number, _residues(row, inserted)[1], True
    residues, columns = _residues(rows[0], inserted)
    if (match := _align(chain, residues)).close:
        return 0, np.append(columns, -1)[match.places], False
    name, residues = _most_alike(rows, chain)
    match = _align(chain, residues)
    raise DataError(
        f"{path}: no row is the wild type; in the closest, {name}, {match.identical} of the {match.aligned} residues "
        f"that align with its {len(chain)} are the same. Give the protein that the alignment is about, or add it there"
    )


def _residues(row: _Row, inserted: bytes) -> tuple[Codes, Places]:
    """Residues of a row, those in insertions included, and the column of each, -1 in an insertion."""
    characters = np.frombuffer(row.text, dtype=np.uint8)
    in_column = ~np.isin(characters, np.frombuffer(inserted, dtype=np.uint8))
    columns = np.where(in_column, np.cumsum(in_column) - 1, -1)
    codes = _CODE[characters]
    return codes[codes != GAP], columns[codes != GAP]


def _align(chain: Codes, other: Codes) -> _Correspondence:
    """Align two proteins: place by place where that is enough, or they are too long for more; else with gaps."""
    both = min(len(chain), len(other))
    places = np.full(len(chain), -1)
    places[:both] = np.arange(both)
    by_place = _Correspondence(places, int(np.count_nonzero(chain[:both] == other[:both])))
    if not both or (len(chain) == len(other) and by_place.close) or len(chain) * len(other) > _MOST_PAIRS:
        return by_place
    from Bio.Align import PairwiseAligner, substitution_matrices

    aligner = PairwiseAligner(mode="global")  # type: ignore[no-untyped-call]
    aligner.substitution_matrix = substitution_matrices.load("BLOSUM62")  # type: ignore[no-untyped-call]
    aligner.open_gap_score, aligner.extend_gap_score, aligner.end_gap_score = -11, -1, 0
    blocks = aligner.align(_letters(chain), _letters(other))[0].aligned  # type: ignore[no-untyped-call]
    places = np.full(len(chain), -1)
    for (first, last), (start, stop) in zip(*blocks, strict=True):
        places[first:last] = np.arange(start, stop)
    facing = places >= 0
    return _Correspondence(places, int(np.count_nonzero(chain[facing] == other[places[facing]])))


def _letters(codes: Codes) -> str:
    return "".join(_LETTERS[np.minimum(codes, NONSTANDARD)])


def _most_alike(rows: Sequence[_Row], chain: Codes) -> tuple[str, Codes]:
    """The row with the most residues in tripeptides that the wild type has too, and its name."""
    known = np.zeros(1 << 24, dtype=bool)
    known[_tripeptides(chain)] = True
    codes = (np.frombuffer(row.text.translate(_TO_CODES, _GAPS), dtype=np.uint8) for row in rows)
    shared = [np.count_nonzero(known[_tripeptides(residues)]) for residues in codes]
    name, text = rows[int(np.argmax(shared))]
    return name, np.frombuffer(text.translate(_TO_CODES, _GAPS), dtype=np.uint8)


def _tripeptides(codes: Codes) -> npt.NDArray[np.int64]:
    wide = codes.astype(np.int64)
    return (wide[:-2] << 16) + (wide[1:-1] << 8) + wide[2:]
