"""Residues to tokens: exactly one token a residue, checked against the checkpoint's own tokeniser when it is loaded.

A protein written in a way its tokeniser does not expect becomes one unknown token, and every protein then gets the same
embedding. So nothing is trusted here: the ways of writing a protein are tried on a probe that holds every pair of
residues, and the one that gives each residue its own token wherever it stands is used. Sequences are afterwards turned
into tokens by table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from enzyme_stability.errors import ArtifactError, SequenceError
from enzyme_stability.sequence import AMINO_ACIDS

Writing = Callable[[Any, str], Sequence[int]]


def _plain(tokeniser: Any, residues: str) -> Sequence[int]:
    ids: Sequence[int] = tokeniser(residues)["input_ids"]
    return ids


def _spaced(tokeniser: Any, residues: str) -> Sequence[int]:
    return _plain(tokeniser, " ".join(residues))


def _words(tokeniser: Any, residues: str) -> Sequence[int]:
    ids: Sequence[int] = tokeniser(list(residues), is_split_into_words=True)["input_ids"]
    return ids


WRITINGS: dict[str, tuple[Writing, ...]] = {
    "bert": (_spaced,),  # ProtBERT: 'M K T'
    "t5": (_spaced, _words),  # ProtT5: 'M K T'; Ankh: a list of residues
    "esm": (_plain,),  # ESM-2: 'MKT'
}
"""How a protein is written for the tokeniser, by architecture; others are tried in turn."""

_ANY: tuple[Writing, ...] = (_spaced, _plain, _words)
_PAIRS = "".join(map("".join, product(AMINO_ACIDS, repeat=2)))
_STRANGER = "☃"  # a character of no protein vocabulary: what becomes of it is what becomes of the unknown


@dataclass(frozen=True)
class Tokenisation:
    """A checkpoint's tokens.

    Attributes:
        before: Special tokens before the first residue.
        after: Special tokens after the last residue.
        table: Token of each byte value, -1 where it is no residue the checkpoint knows, shape (256,).
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    table: np.ndarray

    @property
    def specials(self) -> int:
        """Tokens a sequence has beside its residues."""
        return len(self.before) + len(self.after)

    @classmethod
    def of(cls, folder: Path, model_type: str) -> Tokenisation:
        """Work out the tokens of the checkpoint in ``folder``.

        Raises:
            ArtifactError: The tokeniser is missing, or gives no token of its own to each residue.
        """
        with quietly():
            for tokeniser in _tokenisers(folder):
                for writing in WRITINGS.get(model_type, _ANY):
                    found = cls._try(tokeniser, writing)
                    if found is not None:
                        return found
        raise ArtifactError(
            f"the tokeniser in {folder} does not give each residue one token of its own: "
            "it is damaged, or not one for proteins"
        )

    @classmethod
    def _try(cls, tokeniser: Any, writing: Writing) -> Tokenisation | None:
        try:
            return cls._checked(tokeniser, writing)
        except Exception:  # a tokeniser may raise anything at a writing it does not know
            return None

    @classmethod
    def _checked(cls, tokeniser: Any, writing: Writing) -> Tokenisation | None:
        def ids_of(residues: str) -> list[int]:
            return list(writing(tokeniser, residues))

        probe = AMINO_ACIDS + _PAIRS + "".join(_pieces(tokeniser))
        one, other, ids = ids_of("A"), ids_of("W"), ids_of(probe)
        # What stands before the first residue is what a protein starting with another residue shares.
        start = next((k for k, (a, w) in enumerate(zip(one, other, strict=True)) if a != w), None)
        if start is None or len(ids) - len(probe) != len(one) - 1:
            return None
        before, after = tuple(one[:start]), tuple(one[start + 1 :])

        def inside(residues: str) -> list[int]:
            return ids_of(residues)[start : -len(after) or None]

        tokens = ids[start : start + len(AMINO_ACIDS)]
        unknown = {tokeniser.unk_token_id, *inside(_STRANGER)}
        if len(set(tokens)) != len(AMINO_ACIDS) or unknown & {*before, *tokens, *after}:
            return None
        table = np.full(256, -1, dtype=np.int64)
        table[list(AMINO_ACIDS.encode())] = tokens
        if ids != [*before, *table[list(probe.encode())], *after]:
            return None
        match inside("X"):
            case [token] if token not in unknown and token not in tokens:
                table[ord("X")] = token
        return cls(before, after, table)

    def tokens(self, residues: str) -> np.ndarray:
        """Token ids of the residues alone, shape (length,), int64.

        Raises:
            SequenceError: There is no residue, or one that the checkpoint has no token for.
        """
        ids: np.ndarray = self.table[np.frombuffer(residues.encode("latin-1", "replace"), dtype=np.uint8)]
        if not residues:
            raise SequenceError("the sequence is empty")
        if (ids < 0).any():
            place = int((ids < 0).argmax())
            character = residues[place]
            shown = character if character.isprintable() else f"U+{ord(character):04X}"
            raise SequenceError(f"'{shown}' at position {place + 1} is no residue the language model knows")
        return ids


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Transformers from writing to the terminal while it loads; what matters of it becomes an error."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def reason(error: Exception) -> str:
    """The first line of an error of Transformers, which may go on for a page."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _tokenisers(folder: Path) -> Iterator[Any]:
    """The checkpoint's tokeniser as Transformers builds it; then as its own file has it.

    The two differ for Ankh: Transformers 5 takes only the vocabulary from tokenizer.json and splits words as ProtT5
    does, which puts an unknown token before each residue.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        yield AutoTokenizer.from_pretrained(folder, **local)
        if (folder / "tokenizer.json").is_file():
            yield PreTrainedTokenizerFast.from_pretrained(folder, **local)
    except Exception as error:  # whatever a broken file makes the library raise
        raise ArtifactError(f"{folder} has no tokeniser that can be loaded: {reason(error)}") from None


def _pieces(tokeniser: Any) -> list[str]:
    """Tokens of several residues in the vocabulary, which must not be used where they fit."""
    words = (str(word).strip("▁Ġ#") for word in tokeniser.get_vocab())
    return sorted(word for word in words if len(word) > 1 and set(word) <= set(AMINO_ACIDS))
