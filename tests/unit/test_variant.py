"""What people write is read as the variant they mean, or refused with the reason; nothing is guessed."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enzyme_stability.errors import UnsupportedVariantError, VariantError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import THREE_LETTERS, Substitution, Variant, fitting_offset, parse_positions

LETTERS = {letter: name for name, letter in THREE_LETTERS.items()}
CHAIN = "MKVLAARRWQ"
JOINTS = [":", ",", "+", "/", ";", " ", ", ", " / ", "\t", " ; "]

chains = st.text(alphabet=AMINO_ACIDS, min_size=1, max_size=40)
offsets = st.integers(-60, 400)


@st.composite
def wild_types_and_variants(draw: st.DrawFn) -> tuple[str, Variant]:
    chain, offset = draw(chains), draw(offsets)
    places = draw(st.lists(st.integers(0, len(chain) - 1), unique=True, max_size=6))
    return chain, Variant(
        tuple(
            Substitution(place + offset + 1, chain[place], draw(st.sampled_from(AMINO_ACIDS.replace(chain[place], ""))))
            for place in sorted(places)
        ),
        offset,
    )


def refusal(text: str, kind: type[VariantError] = VariantError) -> str:
    with pytest.raises(VariantError) as caught:
        Variant.parse(text)
    assert type(caught.value) is kind
    return str(caught.value)


def misfit(text: str, wild_type: str, offset: int = 0) -> str:
    variant = Variant.parse(text, offset=offset)
    with pytest.raises(VariantError) as caught:
        variant.check(wild_type)
    with pytest.raises(VariantError, match=re.escape(str(caught.value))):
        variant.apply(wild_type)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "A123V",
        "a123v",
        " A123V\n",
        "A0123V",
        "Ala123Val",
        "ALA123VAL",
        "ala123val",
        "Ala123V",
        "A123Val",
        "p.A123V",
        "p.Ala123Val",
        "P.ALA123VAL",
        "p.(Ala123Val)",
        "p.[Ala123Val]",
        "(A123V)",
        "A123V;",
    ],
)
def test_one_substitution_is_read_in_every_usual_form(text: str) -> None:
    assert Variant.parse(text) == Variant((Substitution(123, "A", "V"),))


@pytest.mark.parametrize("joint", JOINTS)
@pytest.mark.parametrize(("first", "second"), [("A123V", "G45P"), ("p.Ala123Val", "Gly45Pro"), ("g45p", "a123v")])
def test_several_substitutions_are_put_in_the_order_of_their_positions(first: str, second: str, joint: str) -> None:
    assert str(Variant.parse(first + joint + second)) == "G45P:A123V"


def test_the_brackets_of_hgvs_join_substitutions() -> None:
    assert str(Variant.parse("p.[Ala123Val;Gly45Pro]")) == "G45P:A123V"


def test_variants_on_two_alleles_are_not_read_as_one_protein() -> None:
    assert "two alleles" in refusal("p.[Ala123Val];[Gly45Pro]")
    assert "two alleles" in refusal("p.[Ala123Val] ; [Gly45Pro]")


@pytest.mark.parametrize(
    "text", ["WT", "wt", " wt ", "wild type", "Wild-Type", "wild_type", "wildtype", "p.=", "p.(=)"]
)
def test_the_wild_type_has_no_substitutions(text: str) -> None:
    variant = Variant.parse(text, offset=3)
    assert variant == Variant((), 3)
    assert str(variant) == "WT"
    assert variant.places == []
    assert variant.apply(CHAIN) == CHAIN


@pytest.mark.parametrize("text", ["A5=", "p.Ala5=", "p.(Ala5=)", "A5A"])
def test_the_own_residue_again_is_a_substitution_that_changes_nothing(text: str) -> None:
    variant = Variant.parse(text)
    assert variant.substitutions == ((5, "A", "A"),)
    assert variant.apply(CHAIN) == CHAIN


@pytest.mark.parametrize(("text", "position"), [("A-5V", -5), ("A0V", 0), ("A-0V", 0), ("p.Ala-12Val", -12)])
def test_numbers_before_one_are_read(text: str, position: int) -> None:
    assert Variant.parse(text, offset=-20).substitutions == ((position, "A", "V"),)


@given(wild_types_and_variants(), st.sampled_from(JOINTS), st.randoms(use_true_random=False))
def test_what_is_written_is_read_back(pair: tuple[str, Variant], joint: str, shuffled: random.Random) -> None:
    _, variant = pair
    assert Variant.parse(str(variant), offset=variant.offset) == variant
    parts = list(variant.substitutions)
    shuffled.shuffle(parts)
    long = [f"{LETTERS[one.wild_type]}{one.position}{LETTERS[one.substitution]}" for one in parts]
    for texts in (map(str, parts), long, map(str.lower, long)):
        if text := joint.join(texts):
            assert Variant.parse(text, offset=variant.offset) == variant


@given(wild_types_and_variants())
def test_between_finds_what_apply_did(pair: tuple[str, Variant]) -> None:
    chain, variant = pair
    mutated = variant.apply(chain)
    assert sum(a != b for a, b in zip(chain, mutated, strict=True)) == len(variant.substitutions)
    assert Variant.between(chain, mutated, offset=variant.offset) == variant


@given(st.text(max_size=30) | st.text(alphabet="AaVv123=-*:;,/+ p.()[]_del", max_size=20))
def test_no_text_ends_in_anything_but_a_variant_or_a_reason(text: str) -> None:
    try:
        variant = Variant.parse(text)
    except VariantError:
        return
    assert Variant.parse(str(variant)) == variant


def test_the_offset_is_the_number_of_the_first_residue_less_one() -> None:
    assert Variant.parse("M27G", offset=26).apply(CHAIN) == "GKVLAARRWQ"
    assert Variant.parse("M-9G:Q0E", offset=-10).apply(CHAIN) == "GKVLAARRWE"
    assert Variant.parse("M27G:Q36E", offset=26).places == [0, 9]


@pytest.mark.parametrize("text", ["A5V:A5G", "A5V, K2R, A5V", "A5V:K5R"])
def test_two_substitutions_at_one_position_are_refused(text: str) -> None:
    assert "2 substitutions at position 5" in refusal(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("A23del", "a deletion"),
        ("delA23", "a deletion"),
        ("p.Ala23del", "a deletion"),
        ("A23-", "a deletion"),
        ("A23_K25del", "a deletion"),
        ("\u0394F508", "a deletion"),
        ("F508DEL", "a deletion"),
        ("A23_K24insGSG", "an insertion"),
        ("Ala23_Lys24insGlySerGly", "an insertion"),
        ("insG24", "an insertion"),
        ("A23GG", "an insertion"),
        ("Ala23GlyGly", "an insertion"),
        ("A23dup", "an insertion"),
        ("A23_K25dup", "an insertion"),
        ("-23A", "an insertion"),
        ("A23delinsGG", "a deletion with an insertion"),
        ("p.Ala23_Lys25delinsGly", "a deletion with an insertion"),
        ("A23fs", "a frame shift"),
        ("p.Ala23ValfsTer12", "a frame shift"),
        ("A23Vfs*12", "a frame shift"),
        ("W45*", "a stop codon"),
        ("Trp45Ter", "a stop codon"),
        ("W45stop", "a stop codon"),
    ],
)
def test_other_changes_are_named_and_not_supported(text: str, kind: str) -> None:
    assert refusal(text, UnsupportedVariantError) == f"{text} is {kind}; the model knows substitutions only"
    assert kind in refusal(f"K2R:{text}", UnsupportedVariantError)


@pytest.mark.parametrize("letter", "BJOUXZ")
def test_residues_that_are_not_of_the_twenty_are_named(letter: str) -> None:
    for text in (f"{letter}12A", f"A12{letter}", f"a12{letter.lower()}", f"{LETTERS[letter]}12Ala"):
        assert f"{letter} is not one of the twenty amino acids" in refusal(text)


@pytest.mark.parametrize("text", ["AA123V", "A:A123V", "A/A123V", "B:123V", "A 123 V", "A123V/L"])
def test_a_letter_of_its_own_or_too_many_is_taken_for_a_chain_and_refused(text: str) -> None:
    assert "if a letter names the chain, leave it out" in refusal(text)


def test_insertion_codes_of_the_pdb_are_refused() -> None:
    assert "a number has no letter" in refusal("A52aV")


@pytest.mark.parametrize(
    "text",
    [
        "model",  # holds 'del'
        "insulin",
        "terminal",
        "offset",
        "A123",
        "123V",
        "AV",
        "A12.5V",
        "A123>V",
        "A1232",
        "A123V_G45P",
        "A123V-G45P",
        "NP_000537.3:p.Ala12Val",
        "c.76A>T",
        "M1?",
        "A\u0661\u0662V",  # Arabic digits
        "\u013123V",  # a dotless i, whose upper case is I
        "\u017fer12Ala",  # a long s, whose upper case is S
        "A\u2212" + "5V",  # a minus sign is no hyphen
        "A" + 5000 * "9" + "V",
        "=",
    ],
)
def test_nonsense_is_refused_with_an_example(text: str) -> None:
    message = refusal(text)
    assert message.endswith("is no variant; write it like A123V, several as A123V:G45P")
    assert len(message) < 120


@pytest.mark.parametrize("text", ["", "   ", ":", " ; , "])
def test_an_empty_variant_is_refused(text: str) -> None:
    assert "empty" in refusal(text)


def test_another_residue_is_named_with_the_nearest_place_and_the_offset_that_would_fit() -> None:
    #          12345678901234567890
    chain = "MAGGGGGWGGGGGGGGAGGG"
    assert misfit("A8V", chain) == (
        "A8V: the wild type has W at position 8, not A; the nearest A: A2 and A17 (with an offset of 6, it fits)"
    )
    Variant.parse("A8V", offset=6).check(chain)
    assert misfit("A108V", chain, offset=100).endswith("the nearest A: A102 and A117 (with an offset of 106, it fits)")
    Variant.parse("A108V", offset=106).check(chain)
    assert misfit("C8V", chain).endswith("the wild type has W at position 8, not C; the wild type has no C")


def test_the_first_substitution_that_does_not_fit_is_reported() -> None:
    assert misfit("K2R:W3A:L4A", CHAIN).startswith("W3A: the wild type has V at position 3, not W")


@pytest.mark.parametrize(("text", "position"), [("M0V", 0), ("Q11V", 11), ("M-1V", -1), ("A999999999V", 999_999_999)])
def test_positions_outside_are_refused_with_the_range(text: str, position: int) -> None:
    assert misfit(text, CHAIN) == f"{text}: there is no position {position}; the wild type has 1 to 10"
    numbered = misfit(text, CHAIN, offset=-1000)
    assert numbered == f"{text}: there is no position {position}; the wild type has -999 to -990"


def test_an_unknown_residue_of_the_wild_type_can_not_be_replaced() -> None:
    assert "the wild type has X at position 3, not V" in misfit("V3A", "MKXLAARRWQ")


def test_between_refuses_what_only_an_insertion_or_a_deletion_explains() -> None:
    with pytest.raises(UnsupportedVariantError, match="10 residues against 9: an insertion or a deletion"):
        Variant.between(CHAIN, CHAIN[:-1])
    with pytest.raises(UnsupportedVariantError, match="with gaps"):
        Variant.between("MKVLAARRWQ", "MK-LAARRWQ")


def test_the_offset_that_fits_the_most_variants_is_found() -> None:
    chain = "MKVLAARRWQGHDEPTYFCSNI"
    written = [Variant.parse(text) for text in ("M21K", "W29A", "Q30E:H32A", "D33N")]
    assert fitting_offset(written, chain) == 20
    numbered = [Variant(variant.substitutions, offset=-300) for variant in written]
    assert fitting_offset(numbered, chain) == 20
    assert fitting_offset([Variant.parse("M-19K"), Variant.parse("W-11A")], chain) == -20


def test_a_variant_counts_where_all_of_its_substitutions_fit() -> None:
    halves = [Variant.parse(text) for text in ("M11K:P12C", "K12A:P13C", "V13A:P14C")]  # the first of each: offset 10
    assert fitting_offset([*halves, Variant.parse("W29A"), Variant.parse("Q30A")], "MKVLAARRWQGHD") == 20


def test_no_offset_is_found_where_none_is_better() -> None:
    fitting = [Variant.parse("M1K"), Variant.parse("W9A")]
    assert fitting_offset(fitting, CHAIN) is None
    assert fitting_offset([*fitting, Variant.parse("Q3A")], CHAIN) is None  # 2 fit now, 1 would elsewhere
    assert fitting_offset([Variant.parse("A15V")], CHAIN) is None  # at A5 or A6
    assert fitting_offset([Variant.parse("C15V")], CHAIN) is None
    assert fitting_offset([Variant.parse("WT")], CHAIN) is None
    assert fitting_offset([], CHAIN) is None


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("3", [2]),
        ("9, 2-4", [1, 2, 3, 8]),
        ("2-4 3-5\n4", [1, 2, 3, 4]),
        ("W9,k2", [1, 8]),
        ("1-10", list(range(10))),
        ("4-4", [3]),
        ("", []),
    ],
)
def test_positions_are_read_as_numbers_ranges_and_residues(text: str, places: list[int]) -> None:
    assert parse_positions(text, CHAIN) == places


def test_positions_follow_the_offset() -> None:
    assert parse_positions("57,M51 59-60", CHAIN, offset=50) == [0, 6, 8, 9]
    assert parse_positions("-3--1,0,M-4", CHAIN, offset=-5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0", "0: the wild type has positions 1 to 10"),
        ("8-11", "8-11: the wild type has positions 1 to 10"),
        ("4-2", "4-2 runs backwards; write 2-4"),
        ("W8", "W8: the wild type has R at position 8, not W; the nearest W: W9"),
        ("W11", "W11: there is no position 11"),
        ("W", "'W' is no position"),
        ("3-", "'3-' is no position"),
        ("2-4-6", "'2-4-6' is no position"),
        ("A5V", "'A5V' is no position"),
        ("\u0663", "'\u0663' is no position"),
        (5000 * "9", "is no position"),
    ],
)
def test_positions_that_make_no_sense_are_refused(text: str, reason: str) -> None:
    with pytest.raises(VariantError) as caught:
        parse_positions(f"3,{text}", CHAIN)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 120
