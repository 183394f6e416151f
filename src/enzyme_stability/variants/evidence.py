"""What is known of a protein beside its sequence: relatives, and scores of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from enzyme_stability.errors import ConfigError
from enzyme_stability.sequence import AMINO_ACIDS, Record, clean_sequence
from enzyme_stability.variant import Variant
from enzyme_stability.variants.alignment import Alignment, read_alignment, search_relatives
from enzyme_stability.variants.features import FloatArray
from enzyme_stability.variants.language_scores import (
    Method,
    load_masked_language_model,
    masked_marginals,
    score_variants,
    wild_type_marginals,
)
from enzyme_stability.variants.model import LANGUAGE_MODEL_SCORE, PROFILE_SCORE, DeltaTmModel

if TYPE_CHECKING:
    from enzyme_stability.encoders.masked import MaskedLanguageModel


class Evidence:
    """What is known of a protein beside its sequence: relatives, and scores of a language model."""

    def __init__(
        self,
        model: DeltaTmModel,
        msa: Path | None,
        database: Path | None,
        language_model: str | None,
        method: str,
        threads: int,
        report: Callable[[str], None],
    ) -> None:
        if msa and database:
            raise ConfigError("give --msa or --database, not both")
        if method not in get_args(Method):
            raise ConfigError(f"--language-score is '{method}'; give one of {', '.join(get_args(Method))}")
        self._msa, self._database, self._threads, self._report = msa, database, threads, report
        self._needed = model.language_model
        if self._needed is not None and language_model not in (None, self._needed[0]):
            raise ConfigError(f"{model.name} goes with {self._needed[0]}, not with {language_model}")
        self.language_model = language_model or (self._needed[0] if self._needed else None)
        self._method = self._needed[1] if self._needed else method
        self._loaded: MaskedLanguageModel | None = None

    def of(self, record: Record) -> tuple[Alignment | None, FloatArray | None]:
        """Relatives of the protein, and the scores of all its substitutions that the model takes or a scan shows."""
        chain = clean_sequence(record.sequence).chain
        alignment = None
        if self._msa:
            alignment = read_alignment(self._msa, chain)
            for reason in alignment.left_out[:5]:
                self._report(f"left out of {self._msa}: {reason}")
            if len(alignment.left_out) > 5:
                self._report(f"left out of {self._msa}: {len(alignment.left_out) - 5:,} further rows")
        elif self._database:
            alignment = search_relatives(chain, self._database, threads=self._threads)
        if alignment is not None:
            alone = "" if len(alignment.rows) > 1 else ": the sequence alone is used"
            self._report(f"{record.id}: {len(alignment.rows) - 1:,} relatives{alone}")
        if self.language_model is None or (self._method == "pseudo-likelihood" and self._needed is None):
            return alignment, None
        score = masked_marginals if self._method == "masked-marginals" else wild_type_marginals
        return alignment, score(self._language_model(), chain)

    def scores(
        self, chain: str, listed: Sequence[Variant], profile_score: FloatArray | None
    ) -> dict[str, Sequence[float]]:
        """Further scores of variants: of the profile summed up, of the language model jointly."""
        found: dict[str, Sequence[float]] = {}
        if self._msa or self._database:
            found[PROFILE_SCORE] = [
                float("nan")
                if profile_score is None
                else sum(
                    float(profile_score[place, AMINO_ACIDS.index(one.substitution)])
                    for place, one in zip(variant.places, variant.substitutions, strict=True)
                    if one.wild_type != one.substitution
                )
                for variant in listed
            ]
        if self.language_model is not None:
            found[LANGUAGE_MODEL_SCORE] = score_variants(
                self._language_model(),
                chain,
                listed,
                self._method,  # type: ignore[arg-type]
            ).tolist()
        return found

    def _language_model(self) -> MaskedLanguageModel:
        if self._loaded is None:
            self._loaded = load_masked_language_model(str(self.language_model), threads=self._threads)
        return self._loaded
