"""Scores of substitutions against their definitions, computed with Transformers' own model, one sequence at a time."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.utils import logging

from enzyme_stability.encoders import packing
from enzyme_stability.encoders.masked import MaskedLanguageModel
from enzyme_stability.errors import (
    ArtifactError,
    ConfigError,
    MissingDependencyError,
    SequenceError,
    UnsupportedVariantError,
    VariantError,
)
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants.language_scores import (
    language_scores,
    masked_marginals,
    pseudo_likelihood,
    score_variants,
    wild_type_marginals,
)
from tiny_models import bert_config, esm_config, save_tiny_model, save_tokeniser, stir

MODELS = {
    "prot_bert": lambda: transformers.BertForMaskedLM(bert_config()),
    "esm2": lambda: transformers.EsmForMaskedLM(esm_config("rotary")),
}
MASKS = {"bert": 4, "esm": 32}
SAME = 1e-4
SUMMED = 1e-3  # of several dozen terms
WILD_TYPE = "MKVLXARRWQGGHDEPTYFCSNIMK"
LONG = "".join(random.Random(4).choices(AMINO_ACIDS, k=61))


@pytest.fixture(scope="module", autouse=True)
def _one_thread_without_bars() -> Iterator[None]:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def save(kind: str, folder: Path) -> Path:
    torch.manual_seed(6)
    whole = MODELS[kind]()
    stir(whole)
    whole.save_pretrained(folder)
    save_tokeniser(kind, folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def folder_of(kind: str) -> Path:
        return save(kind, tmp_path_factory.mktemp(kind))

    return folder_of


def load(folder: Path, **settings: Any) -> MaskedLanguageModel:
    return MaskedLanguageModel(folder, **{"precision": "float32", "device": "cpu", **settings})


class Definitions:
    """ln p by Transformers alone: one sequence at a time, unpadded, eager attention."""

    def __init__(self, folder: Path, model: MaskedLanguageModel) -> None:
        self.stock = transformers.AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
        self.model = model

    def ln_p(self, residues: str, masked: tuple[int, ...] = ()) -> np.ndarray:
        """Shape (L, 20)."""
        tokenisation = self.model.tokenisation
        tokens = tokenisation.tokens(residues).copy()
        tokens[list(masked)] = MASKS[self.stock.config.model_type]
        ids = torch.tensor([[*tokenisation.before, *tokens, *tokenisation.after]])
        with torch.no_grad():
            logits = self.stock(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        columns = [int(tokenisation.tokens(residue)[0]) for residue in AMINO_ACIDS]
        rows: np.ndarray = logits.double().log_softmax(-1)[len(tokenisation.before) :][: len(residues), columns].numpy()
        return rows

    def own_term(self, residues: str, place: int) -> float:
        """ln p of a residue, masked, in the window in which it is most central."""
        if residues[place] == "X":
            return 0.0
        stretches = packing.windows(len(residues), self.model.window, self.model.overlap)
        start, stop = max(stretches, key=lambda own: min(place - own[0], own[1] - 1 - place))
        row = self.ln_p(residues[start:stop], (place - start,))[place - start]
        return float(row[AMINO_ACIDS.index(residues[place])])

    def pseudo_likelihood(self, residues: str) -> float:
        return sum(self.own_term(residues, place) for place in range(len(residues)))


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> tuple[MaskedLanguageModel, Definitions]:
    folder = checkpoint(request.param)
    model = load(folder)
    return model, Definitions(folder, model)


Pair = tuple[MaskedLanguageModel, Definitions]


def variants(*texts: str, offset: int = 0) -> list[Variant]:
    return [Variant.parse(text, offset=offset) for text in texts]


def check_scan(found: np.ndarray, ln_p: Callable[[int], np.ndarray]) -> None:
    """``ln_p`` gives the twenty log probabilities of a place."""
    assert found.shape == (len(WILD_TYPE), 20)
    assert found.dtype == np.float64
    for place, residue in enumerate(WILD_TYPE):
        for column, other in enumerate(AMINO_ACIDS):
            if residue in {"X", other}:
                assert np.isnan(found[place, column])
            else:
                row = ln_p(place)
                assert abs(found[place, column] - (row[column] - row[AMINO_ACIDS.index(residue)])) < SAME


# --- scans


def test_masked_marginals_are_their_definition(pair: Pair) -> None:
    model, definitions = pair
    row = cache(lambda place: definitions.ln_p(WILD_TYPE, (place,))[place])
    check_scan(masked_marginals(model, WILD_TYPE), row)


def test_wild_type_marginals_are_their_definition(pair: Pair) -> None:
    model, definitions = pair
    unmasked = definitions.ln_p(WILD_TYPE)
    check_scan(wild_type_marginals(model, WILD_TYPE), lambda place: unmasked[place])


def test_a_wild_type_of_unknown_residues_has_no_scores(pair: Pair) -> None:
    for scan in (masked_marginals, wild_type_marginals):
        assert np.isnan(scan(pair[0], "X" * 12)).all()


def test_progress_counts_one_pass_a_known_residue(pair: Pair) -> None:
    passes: list[int] = []
    masked_marginals(pair[0], WILD_TYPE, passes.append)
    assert sum(passes) == len(WILD_TYPE) - 1


# --- lists of variants


LIST = ("M1A", "WT", "V3W:R8D:K25P", "V3W", "K25P:V3W", "M1A:K2K", "K2K")


def test_substitutions_are_masked_together(pair: Pair) -> None:
    model, definitions = pair
    found = score_variants(model, WILD_TYPE, variants(*LIST))

    def expected(variant: Variant) -> float:
        changed = [one for one in variant.substitutions if one.wild_type != one.substitution]
        places = tuple(one.position - 1 for one in changed)
        rows = definitions.ln_p(WILD_TYPE, places)[list(places)]
        gains = [
            row[AMINO_ACIDS.index(one.substitution)] - row[AMINO_ACIDS.index(one.wild_type)]
            for one, row in zip(changed, rows, strict=True)
        ]
        return float(sum(gains))

    assert np.abs(found - [expected(variant) for variant in variants(*LIST)]).max() < SAME
    assert found[1] == found[6] == 0
    assert found[0] == found[5]
    scan = masked_marginals(model, WILD_TYPE)
    assert abs(found[0] - scan[0, AMINO_ACIDS.index("A")]) < SAME
    alone = [scan[place, AMINO_ACIDS.index(residue)] for place, residue in ((2, "W"), (7, "D"), (24, "P"))]
    assert abs(found[2] - sum(alone)) > 0.01  # masking them together is not masking one by one


def test_wild_type_marginals_of_several_substitutions_add_up(pair: Pair) -> None:
    found = score_variants(pair[0], WILD_TYPE, variants(*LIST), "wild-type-marginals")
    scan = wild_type_marginals(pair[0], WILD_TYPE)
    alone = [scan[place, AMINO_ACIDS.index(residue)] for place, residue in ((2, "W"), (7, "D"), (24, "P"))]
    assert abs(found[2] - sum(alone)) < SAME
    assert found[1] == found[6] == 0


def test_pseudo_likelihoods_are_their_definition(pair: Pair) -> None:
    model, definitions = pair
    found = score_variants(model, WILD_TYPE, variants(*LIST), "pseudo-likelihood")
    of_wild_type = definitions.pseudo_likelihood(WILD_TYPE)
    expected = [definitions.pseudo_likelihood(own.apply(WILD_TYPE)) - of_wild_type for own in variants(*LIST)]
    assert np.abs(found - expected).max() < SUMMED
    assert np.ptp(expected) > 1


def test_pseudo_likelihoods_of_long_proteins_leave_out_only_what_cannot_differ(
    checkpoint: Callable[[str], Path],
) -> None:
    model = load(checkpoint("esm2"), window=24, overlap=8)
    definitions = Definitions(checkpoint("esm2"), model)
    sequences = ["W" + LONG[1:], LONG[:30] + "PP" + LONG[32:], LONG]
    passes: list[int] = []
    found = pseudo_likelihood(model, LONG, sequences, passes.append)
    of_wild_type = definitions.pseudo_likelihood(LONG)
    expected = [definitions.pseudo_likelihood(own) - of_wild_type for own in sequences]
    assert np.abs(found - expected).max() < SUMMED
    assert found[2] == 0
    assert sum(passes) < 3 * len(LONG)


def test_the_numbering_of_the_variants_is_followed(pair: Pair) -> None:
    plain = score_variants(pair[0], WILD_TYPE, variants("V3W", "R8D"))
    shifted = score_variants(pair[0], WILD_TYPE, variants("V103W", "R108D", offset=100))
    assert np.array_equal(plain, shifted)


@pytest.mark.parametrize("method", ["masked-marginals", "wild-type-marginals", "pseudo-likelihood"])
def test_a_variant_that_does_not_fit_is_refused_and_none_is_no_error(method: Any, pair: Pair) -> None:
    with pytest.raises(VariantError, match="the wild type has V at position 3"):
        score_variants(pair[0], WILD_TYPE, variants("M1A", "A3W"), method)
    assert score_variants(pair[0], WILD_TYPE, [], method).shape == (0,)


def test_a_sequence_of_another_length_is_refused(pair: Pair) -> None:
    with pytest.raises(UnsupportedVariantError):
        pseudo_likelihood(pair[0], WILD_TYPE, [WILD_TYPE, WILD_TYPE + "A"])


def test_an_unknown_method_is_refused(pair: Pair) -> None:
    with pytest.raises(ConfigError, match="pseudo-likelihood"):
        score_variants(pair[0], WILD_TYPE, variants("M1A"), "marginals")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="masked-marginals, wild-type-marginals"):
        language_scores(WILD_TYPE, "esm2_8m", method="pseudo-likelihood")  # type: ignore[arg-type]


# --- by name


def test_a_model_is_found_by_name_hub_id_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENZYME_STABILITY_MODELS", str(tmp_path))
    folder = save("esm2", tmp_path / "esm2_8m")
    for method, scan in (("masked-marginals", masked_marginals), ("wild-type-marginals", wild_type_marginals)):
        expected = scan(load(folder), WILD_TYPE)
        for name in ("esm2_8m", "facebook/esm2_t6_8M_UR50D", str(folder)):
            found = language_scores(WILD_TYPE, name, method=method, precision="float32", device="cpu")  # type: ignore[arg-type]
            assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("kind", MODELS)
def test_a_head_in_pytorchs_own_format_is_read_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENZYME_STABILITY_MODELS", str(tmp_path / "models"))
    folder = save(kind, tmp_path / "own")
    expected = masked_marginals(load(folder), WILD_TYPE)
    whole = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    torch.save(whole.state_dict(), folder / "pytorch_model.bin")  # tied weights under both of their names
    (folder / "model.safetensors").unlink()
    found = language_scores(WILD_TYPE, str(folder), precision="float32", device="cpu")
    assert np.array_equal(found, expected, equal_nan=True)


def test_settings_reach_the_model(checkpoint: Callable[[str], Path]) -> None:
    settings: dict[str, Any] = {"precision": "float32", "device": "cpu"}
    folder = str(checkpoint("esm2"))
    windowed = language_scores(LONG, folder, window=20, token_budget=50, **settings)
    assert np.allclose(windowed, masked_marginals(load(Path(folder), window=20), LONG), atol=SAME, equal_nan=True)
    assert np.nanmax(np.abs(windowed - language_scores(LONG, folder, **settings))) > 0.01
    with pytest.raises(ConfigError, match=r"encoder\.device is 'toaster'"):
        language_scores(LONG, folder, device="toaster")


def test_a_model_that_is_not_here_is_told_how_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENZYME_STABILITY_MODELS", str(tmp_path))
    with pytest.raises(ArtifactError, match="models pull esm2_650m"):
        language_scores(WILD_TYPE, "esm2_650m")


@pytest.mark.parametrize("name", ["prot_t5_xl", "ElnaggarLab/ankh-base"])
def test_a_family_without_a_head_is_refused_before_it_is_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENZYME_STABILITY_MODELS", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"{name} is a model of the family t5, .* prot_bert, "):
        language_scores(WILD_TYPE, name)
    with pytest.raises(ConfigError, match="family t5"):
        language_scores(WILD_TYPE, str(save_tiny_model("prot_t5", tmp_path / "own")))


def test_a_wild_type_with_what_is_no_residue_is_refused(checkpoint: Callable[[str], Path]) -> None:
    for method in ("masked-marginals", "wild-type-marginals"):
        with pytest.raises(SequenceError, match="'J' at position 3"):
            language_scores("MKJLAARRWQ", str(checkpoint("esm2")), method=method, device="cpu")  # type: ignore[arg-type]


def test_the_install_command_is_told_where_pytorch_is_missing(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(checkpoint("esm2"))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[plm\]"):
        language_scores(WILD_TYPE, folder)
