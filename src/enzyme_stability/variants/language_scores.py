"""How much likelier a protein language model finds a substitution than the wild type: scores that no Tm was seen for.

Every score is ln p(variant) - ln p(wild type); the higher, the likelier. It is no temperature: what it says about
delta Tm = Tm(variant) - Tm(wild type) is left to a model that learns from both. The three ways of Meier et al. 2021
(doi 10.1101/2021.07.09.450648), with x the wild type:

======================  ============================================================  =========================
method                  score of a substitution a at place i                          passes over the protein
======================  ============================================================  =========================
masked-marginals        ln p(a | x without i) - ln p(x_i | x without i)               one a place
wild-type-marginals     ln p(a | x) - ln p(x_i | x)                                   one
pseudo-likelihood       sum over all places j of ln p(y_j | y without j), y the       one a place and variant
                        variant, less the same of the wild type
======================  ============================================================  =========================

Several substitutions: the marginals are summed over them, all of their places masked together where they are masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from enzyme_stability.errors import ConfigError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant

if TYPE_CHECKING:
    from enzyme_stability.encoders.masked import MaskedLanguageModel

FloatArray = npt.NDArray[np.float64]
ScanMethod = Literal["masked-marginals", "wild-type-marginals"]
Method = Literal[ScanMethod, "pseudo-likelihood"]
Advance = Callable[[int], None]
"""Called after each batch with the number of passes that it finished."""

_COLUMN = {residue: k for k, residue in enumerate(AMINO_ACIDS)}


def language_scores(
    wild_type: str,
    model: str,
    *,
    method: ScanMethod = "masked-marginals",
    window: int | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    token_budget: int | None = None,
    threads: int = 0,
    advance: Advance = lambda _: None,
) -> FloatArray:
    """Scores of all substitutions in a protein. Needs the ``plm`` extra.

    Args:
        wild_type: Its residues, ``L`` of them; ``X`` where one is unknown.
        model: Name as in ``models list``, hub id or local folder; of the BERT or ESM line.
        method: See the module.
        window: Longest stretch of residues given at once; None takes the model's. A place is scored in the window in
            which it is most central.
        precision: Of the encoder; the head is float32.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        token_budget: Tokens in a batch; None suits the device.
        threads: Threads of the processor; 0 leaves it to PyTorch.
        advance: Told how many passes a batch finished; masked marginals take one a known residue.

    Returns:
        ln p(substitution) - ln p(wild type), shape (L, 20), columns as ``AMINO_ACIDS``; NaN for the wild type's own
        residue and where it is unknown.

    Raises:
        ArtifactError: The model is not on this machine, damaged or without the weights of its head.
        ConfigError: The model has no head for masked residues, or a setting makes no sense.
        SequenceError: The wild type holds what is no residue.
        EnzymeStabilityError: There is too little memory.
        MissingDependencyError: PyTorch or Transformers is not installed.
    """
    if method not in get_args(ScanMethod):
        raise ConfigError(f"'{method}' is no method for a scan; give one of {', '.join(get_args(ScanMethod))}")
    loaded = load_masked_language_model(
        model, window=window, precision=precision, device=device, token_budget=token_budget, threads=threads
    )
    if method == "wild-type-marginals":
        return wild_type_marginals(loaded, wild_type)
    return masked_marginals(loaded, wild_type, advance)


def load_masked_language_model(
    model: str,
    *,
    window: int | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    token_budget: int | None = None,
    threads: int = 0,
) -> MaskedLanguageModel:
    """The language model of that name; arguments and errors as for ``language_scores``."""
    from enzyme_stability.encoders.checkpoints import KNOWN_CHECKPOINTS, find_checkpoint
    from enzyme_stability.encoders.masked import HEADS, MaskedLanguageModel, no_head

    for known in KNOWN_CHECKPOINTS.values():  # said before someone fetches gigabytes for nothing
        if model in (known.name, known.repository) and known.family not in HEADS:
            raise no_head(model, known.family)
    return MaskedLanguageModel(
        find_checkpoint(model),
        window=window,
        precision=precision,
        device=device,
        token_budget=token_budget,
        threads=threads,
    )


def masked_marginals(model: MaskedLanguageModel, wild_type: str, advance: Advance = lambda _: None) -> FloatArray:
    """Scores of all substitutions with one pass for each known residue, that residue masked; shape (L, 20)."""
    places = [place for place, residue in enumerate(wild_type) if residue in _COLUMN]
    found = np.full((len(wild_type), len(AMINO_ACIDS)), np.nan)
    answers = model.jointly_masked(wild_type, [[place] for place in places], advance)
    if places:
        found[places] = np.concatenate(answers)
    return _against_wild_type(found, wild_type)


def wild_type_marginals(model: MaskedLanguageModel, wild_type: str) -> FloatArray:
    """Scores of all substitutions with one pass, nothing masked; shape (L, 20)."""
    return _against_wild_type(model.log_probabilities(wild_type), wild_type)


def pseudo_likelihood(
    model: MaskedLanguageModel, wild_type: str, sequences: Sequence[str], advance: Advance = lambda _: None
) -> FloatArray:
    """Pseudo-log-likelihood of each variant less that of the wild type. Exact, so slow: for lists, not for scans.

    Terms that cannot differ, of residues whose window holds no substitution, are not computed. Places where a residue
    is unknown have no term.

    Args:
        model: The language model.
        wild_type: Its residues.
        sequences: Whole sequences of variants, as long as the wild type.
        advance: Told how many passes a batch finished.

    Returns:
        Shape (sequences,); 0 for the wild type itself.

    Raises:
        SequenceError: A sequence holds what is no residue.
        UnsupportedVariantError: A sequence has another length.
    """
    needed: list[list[int]] = []
    for sequence in sequences:
        substituted = Variant.between(wild_type, sequence).places
        seen = model.places_that_see(len(wild_type), substituted) if substituted else ()
        needed.append([int(k) for k in seen if wild_type[k] in _COLUMN and sequence[k] in _COLUMN])
    together = sorted(set().union(*needed))
    wild_type_terms = dict(zip(together, _own_terms(model, wild_type, together, advance), strict=True))
    scores = {
        sequence: float((_own_terms(model, sequence, places, advance) - [wild_type_terms[k] for k in places]).sum())
        for sequence, places in dict(zip(sequences, needed, strict=True)).items()
    }
    return np.array([scores[sequence] for sequence in sequences], dtype=np.float64)


def score_variants(
    model: MaskedLanguageModel,
    wild_type: str,
    variants: Sequence[Variant],
    method: Method = "masked-marginals",
    advance: Advance = lambda _: None,
) -> FloatArray:
    """Scores of a list of variants, each of any number of substitutions.

    Args:
        model: The language model.
        wild_type: Its residues.
        variants: In the wild type's numbering.
        method: See the module.
        advance: Told how many passes a batch finished.

    Returns:
        Shape (variants,); 0 for the wild type itself.

    Raises:
        ConfigError: There is no such method.
        SequenceError: The wild type holds what is no residue.
        VariantError: A variant does not fit the wild type.
    """
    if method not in get_args(Method):
        raise ConfigError(f"'{method}' is no method; give one of {', '.join(get_args(Method))}")
    sequences = [variant.apply(wild_type) for variant in variants]
    if method == "pseudo-likelihood":
        return pseudo_likelihood(model, wild_type, sequences, advance)
    changes = [Variant.between(wild_type, sequence) for sequence in sequences]  # without the likes of A1A
    if method == "wild-type-marginals":
        everywhere = model.log_probabilities(wild_type)
        return np.array([_gain(change, everywhere[change.places]) for change in changes], dtype=np.float64)
    groups = list(dict.fromkeys(tuple(change.places) for change in changes))
    found = dict(zip(groups, model.jointly_masked(wild_type, groups, advance), strict=True))
    return np.array([_gain(change, found[tuple(change.places)]) for change in changes], dtype=np.float64)


def _gain(change: Variant, log_probabilities: FloatArray) -> float:
    """Sum over substitutions; a row of ``log_probabilities``, shape (substitutions, 20), is of one of them."""
    rows = zip(change.substitutions, log_probabilities, strict=True)
    return float(sum(row[_COLUMN[one.substitution]] - row[_COLUMN[one.wild_type]] for one, row in rows))


def _own_terms(model: MaskedLanguageModel, residues: str, places: Sequence[int], advance: Advance) -> FloatArray:
    """What the residues at ``places`` add to the pseudo-log-likelihood, each masked in turn; shape (places,)."""
    answers = model.jointly_masked(residues, [[place] for place in places], advance)
    terms = [answer[0, _COLUMN[residues[place]]] for place, answer in zip(places, answers, strict=True)]
    return np.array(terms, dtype=np.float64)


def _against_wild_type(log_probabilities: FloatArray, wild_type: str) -> FloatArray:
    """Each row less that of the wild type's residue, with NaN for it and for rows of unknown residues."""
    places = np.array([k for k, residue in enumerate(wild_type) if residue in _COLUMN], dtype=np.intp)
    own = np.array([_COLUMN[wild_type[k]] for k in places], dtype=np.intp)
    scores = np.full_like(log_probabilities, np.nan)
    scores[places] = log_probabilities[places] - log_probabilities[places, own][:, None]
    scores[places, own] = np.nan
    return scores
