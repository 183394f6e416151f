"""Residues to tokens, against the tokenisers of Transformers themselves."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers.utils import logging

from enzyme_stability.encoders.tokenisation import Tokenisation
from enzyme_stability.errors import ArtifactError, SequenceError
from enzyme_stability.sequence import AMINO_ACIDS
from tiny_models import KINDS, save_tokeniser

FAMILIES = {"prot_bert": "bert", "esm2": "esm", "esm1b": "esm", "prot_t5": "t5", "ankh": "t5"}
SPECIALS = {
    "prot_bert": ((2,), (3,)),
    "esm2": ((0,), (2,)),
    "esm1b": ((0,), (2,)),
    "prot_t5": ((), (1,)),
    "ankh": ((), (1,)),
}
proteins = st.text(AMINO_ACIDS + "X", min_size=1, max_size=60)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def folder_of(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        save_tokeniser(kind, folder)
        return folder

    return folder_of


def tokens_by_transformers(kind: str, folder: Path) -> Callable[[str], list[int]]:
    """What the authors of each checkpoint tell its users to do."""
    if kind == "ankh":  # the file itself: the class that Transformers 5 picks splits words another way
        raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return lambda protein: raw.encode(list(protein), is_pretokenized=True).ids
    tokeniser = transformers.AutoTokenizer.from_pretrained(folder)
    if kind in ("esm2", "esm1b"):
        return lambda protein: tokeniser(protein)["input_ids"]
    return lambda protein: tokeniser(" ".join(protein))["input_ids"]


def save_unigram(folder: Path, pieces: Sequence[str], **changes: Any) -> Path:
    """A tokeniser that knows only these pieces and takes text as it is."""
    tokeniser = Tokenizer(models.Unigram([("<unk>", 0.0), *((piece, -2.0) for piece in pieces)], unk_id=0))
    for name, part in changes.items():
        setattr(tokeniser, name, part)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokeniser, unk_token="<unk>").save_pretrained(folder)  # noqa: S106
    return folder


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(protein=proteins)
def test_tokens_are_those_of_the_checkpoints_own_tokeniser(
    kind: str, protein: str, folders: Callable[[str], Path]
) -> None:
    tokenisation = _of(folders(kind), FAMILIES[kind])
    expected = tokens_by_transformers(kind, folders(kind))(protein)
    assert [*tokenisation.before, *tokenisation.tokens(protein), *tokenisation.after] == expected
    assert len(tokenisation.tokens(protein)) == len(protein)


@cache
def _of(folder: Path, family: str) -> Tokenisation:
    return Tokenisation.of(folder, family)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_stand_around_the_residues_and_are_none_of_them(
    kind: str, folders: Callable[[str], Path]
) -> None:
    tokenisation = _of(folders(kind), FAMILIES[kind])
    assert (tokenisation.before, tokenisation.after) == SPECIALS[kind]
    assert tokenisation.specials == sum(map(len, SPECIALS[kind]))
    assert not {*tokenisation.before, *tokenisation.after} & {*tokenisation.tokens(AMINO_ACIDS + "X").tolist()}


def test_proteins_never_become_one_unknown_token(folders: Callable[[str], Path]) -> None:
    tokeniser = transformers.AutoTokenizer.from_pretrained(folders("prot_bert"))
    unspaced = {tuple(tokeniser(protein)["input_ids"]) for protein in ("MKTAYI", "WWLLPC")}
    assert unspaced == {(2, tokeniser.unk_token_id, 3)}  # the mistake that is to be impossible
    tokenisation = _of(folders("prot_bert"), "bert")
    choose = random.Random(1)
    written = {"".join(choose.choices(AMINO_ACIDS, k=12)) for _ in range(200)}
    assert len({tokenisation.tokens(protein).tobytes() for protein in written}) == len(written)
    assert tokeniser.unk_token_id not in tokenisation.table


def test_ankh_is_read_right_though_transformers_rebuilds_its_tokeniser(folders: Callable[[str], Path]) -> None:
    rebuilt = transformers.AutoTokenizer.from_pretrained(folders("ankh"))
    ids = _of(folders("ankh"), "t5").tokens("MKTAYIAK")
    assert rebuilt.convert_ids_to_tokens(ids.tolist()) == list("MKTAYIAK")
    assert rebuilt.unk_token_id not in ids


def test_a_tokeniser_that_lower_cases_is_refused(tmp_path: Path) -> None:
    save_tokeniser("prot_bert", tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_lower_case": True}))
    _refused(tmp_path, "bert")
    save_unigram(tmp_path / "unigram", AMINO_ACIDS, normalizer=normalizers.Lowercase())
    _refused(tmp_path / "unigram", "esm")


@pytest.mark.parametrize("missing", ["A", "W", "Y"])
@pytest.mark.parametrize("kind", ["prot_bert", "esm2"])
def test_a_tokeniser_that_lacks_a_residue_is_refused(kind: str, missing: str, tmp_path: Path) -> None:
    save_tokeniser(kind, tmp_path)
    words = (tmp_path / "vocab.txt").read_text().split("\n")
    (tmp_path / "vocab.txt").write_text("\n".join(word for word in words if word != missing))
    _refused(tmp_path, FAMILIES[kind])


@pytest.mark.parametrize("missing", ["A", "W", "Y"])
@pytest.mark.parametrize("family", ["t5", "esm", "unheard-of"])
def test_a_unigram_tokeniser_that_lacks_a_residue_is_refused(family: str, missing: str, tmp_path: Path) -> None:
    save_unigram(tmp_path, AMINO_ACIDS.replace(missing, ""))
    _refused(tmp_path, family)


@pytest.mark.parametrize("piece", ["LL", "AG", "WA", "LAG", "MKTAYI"])
def test_a_tokeniser_that_merges_residues_is_refused(piece: str, tmp_path: Path) -> None:
    save_unigram(tmp_path, [*AMINO_ACIDS, piece])
    _refused(tmp_path, "esm")


def test_a_byte_pair_tokeniser_that_merges_residues_is_refused(tmp_path: Path) -> None:
    vocabulary = {word: k for k, word in enumerate(["<unk>", *AMINO_ACIDS, "LL"])}
    tokeniser = Tokenizer(models.BPE(vocabulary, [("L", "L")], unk_token="<unk>"))  # noqa: S106
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokeniser, unk_token="<unk>").save_pretrained(tmp_path)  # noqa: S106
    _refused(tmp_path, "esm")


def test_a_tokeniser_that_drops_a_repeated_residue_is_refused(tmp_path: Path) -> None:
    save_unigram(tmp_path, AMINO_ACIDS, normalizer=normalizers.Replace("LL", "L"))
    _refused(tmp_path, "esm")


def test_pieces_of_several_residues_do_no_harm_where_residues_are_written_apart(tmp_path: Path) -> None:
    save_unigram(tmp_path, [*AMINO_ACIDS, "LL"], pre_tokenizer=pre_tokenizers.WhitespaceSplit())
    ids = Tokenisation.of(tmp_path, "unheard-of").tokens("LLAG")
    assert ids.tolist() == [1 + AMINO_ACIDS.index(residue) for residue in "LLAG"]


def _refused(folder: Path, family: str) -> None:
    with pytest.raises(ArtifactError, match="does not give each residue one token of its own") as caught:
        Tokenisation.of(folder, family)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_without_the_files_of_its_tokeniser_is_refused(kind: str, tmp_path: Path) -> None:
    save_tokeniser(kind, tmp_path)
    for name in ("vocab.txt", "spiece.model", "tokenizer.json"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(ArtifactError, match="tokeniser") as caught:
        Tokenisation.of(tmp_path, FAMILIES[kind])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), [("prot_t5", "spiece.model"), ("ankh", "tokenizer.json")])
@pytest.mark.parametrize("damage", [b"", b"\x00\xff" * 40, b'{"version": "1.0", "model'])
def test_a_damaged_tokeniser_is_refused(kind: str, name: str, damage: bytes, tmp_path: Path) -> None:
    save_tokeniser(kind, tmp_path)
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(ArtifactError, match="tokeniser") as caught:
        Tokenisation.of(tmp_path, FAMILIES[kind])
    assert "\n" not in str(caught.value)


def test_an_unknown_residue_is_a_token_only_where_the_checkpoint_has_one(
    tmp_path: Path, folders: Callable[[str], Path]
) -> None:
    assert _of(folders("esm2"), "esm").tokens("MXK").tolist() == [20, 24, 11]
    save_tokeniser("esm2", tmp_path)
    words = (tmp_path / "vocab.txt").read_text().split("\n")
    (tmp_path / "vocab.txt").write_text("\n".join(word for word in words if word != "X"))
    with pytest.raises(SequenceError, match="'X' at position 2"):
        Tokenisation.of(tmp_path, "esm").tokens("MXK")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("residues", "message"),
    [
        ("MKa", "'a' at position 3 "),
        ("MK TAYI", "' ' at position 3 "),
        ("B", "'B' at position 1 "),
        ("MKМ", "'М' at position 3 "),  # noqa: RUF001 - the Cyrillic letter that looks like M
        ("M\N{SNOWMAN}K*", "'\N{SNOWMAN}' at position 2 "),
        ("MK\N{GRINNING FACE}-", "'\N{GRINNING FACE}' at position 3 "),
        ("MÄ", "'Ä' at position 2 "),
        ("M\x00", r"'U\+0000' at position 2 "),
        ("M\ud800", r"'U\+D800' at position 2 "),
        ("M?", r"'\?' at position 2 "),
        ("", "empty"),
    ],
)
def test_what_is_no_residue_is_refused_with_its_position(
    kind: str, residues: str, message: str, folders: Callable[[str], Path]
) -> None:
    with pytest.raises(SequenceError, match=message):
        _of(folders(kind), FAMILIES[kind]).tokens(residues)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_printed_and_the_settings_of_transformers_stay(
    kind: str, folders: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    Tokenisation.of(folders(kind), FAMILIES[kind])
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_code_that_comes_with_a_tokeniser_never_runs(tmp_path: Path) -> None:
    save_tokeniser("esm2", tmp_path)
    config = tmp_path / "tokenizer_config.json"
    armed = {"auto_map": {"AutoTokenizer": ["armed.Armed", None]}, "tokenizer_class": "Armed"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **armed}))
    (tmp_path / "armed.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Armed: pass\n")
    with pytest.raises(ArtifactError, match="tokeniser"):
        Tokenisation.of(tmp_path, "esm")
    assert not (tmp_path / "ran").exists()
