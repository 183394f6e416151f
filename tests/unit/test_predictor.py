"""What the shipped predictors promise whatever they were trained on: a row a record, in order, or one clear error."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enzyme_stability import Prediction, Predictor, Record
from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError, SequenceError
from enzyme_stability.prediction import COLUMNS
from enzyme_stability.predictor import MANIFEST
from enzyme_stability.sequence import AMINO_ACIDS

LYSOZYME = (
    "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKIVSDGNGMNAW"
    "VAWRNRCKGTDVQAWIRGCRL"
)
CHAIN = AMINO_ACIDS * 6


@pytest.fixture(scope="module", params=Predictor.builtin_names())
def shipped(request: pytest.FixtureRequest) -> Predictor:
    return Predictor.builtin(request.param, threads=1)


@pytest.fixture
def copied(builtin: Predictor, tmp_path: Path) -> Path:
    """A copy of the built-in predictor to damage."""
    builtin.save(tmp_path / "copied")
    return tmp_path / "copied"


def only(rows: list[Prediction]) -> Prediction:
    (row,) = rows
    return row


def answer(row: Prediction) -> tuple[Any, ...]:
    return tuple(getattr(row, field.name) for field in fields(row) if field.name != "id")


def assert_well_formed(row: Prediction) -> None:
    if row.status == "error":
        assert row.note
        numbers = (row.length, row.tm_celsius, row.tm_lower_celsius, row.tm_upper_celsius, row.in_domain)
        assert numbers == (None,) * 5
        return
    assert row.status in {"ok", "warning"}
    assert row.length is not None
    assert row.length >= 10
    assert None not in (row.tm_lower_celsius, row.tm_celsius, row.tm_upper_celsius)
    assert row.tm_lower_celsius <= row.tm_celsius <= row.tm_upper_celsius  # type: ignore[operator]
    assert np.isfinite([row.tm_lower_celsius, row.tm_upper_celsius]).all()
    assert 0 < row.tm_celsius < 130  # type: ignore[operator]
    assert isinstance(row.in_domain, bool)
    assert row.in_domain == ("out of domain" not in row.note)


def test_two_predictors_ship() -> None:
    assert {"builtin", "tm50"} <= set(Predictor.builtin_names())


def test_enzymes_from_cold_to_hot_get_sensible_answers(shipped: Predictor, examples: Path) -> None:
    sequences = ["".join(part.split("\n")[1:]) for part in examples.read_text().split(">")[1:]]
    rows = shipped.predict(sequences)
    assert len(rows) == len(sequences)
    for row, sequence in zip(rows, sequences, strict=True):
        assert_well_formed(row)
        assert row.length == len(sequence)
        assert row.status == "ok"
    assert len({row.tm_celsius for row in rows}) == len(rows)


def test_rows_stand_in_the_order_of_the_records_with_bad_ones_between(shipped: Predictor) -> None:
    texts = [LYSOZYME, "", CHAIN, "MKV1LAARRWQ", "X" * 50, LYSOZYME.lower(), "MKV", CHAIN + "U", "MKVLA*ARRWQ", CHAIN]
    records = [Record(f"r{k}", text) for k, text in enumerate(texts)]
    rows = shipped.predict(records)
    assert [row.id for row in rows] == [record.id for record in records]
    assert [row.status for row in rows] == [
        "ok", "error", "ok", "error", "error", "ok", "error", "warning", "error", "ok",
    ]  # fmt: skip
    for row in rows:
        assert_well_formed(row)
    assert answer(rows[0]) == answer(rows[5])
    assert answer(rows[2]) == answer(rows[9])
    assert "'1' at position 4" in rows[3].note
    assert rows[7].note.startswith("1 U counted as C")


def test_a_bad_neighbour_does_not_move_an_answer(shipped: Predictor) -> None:
    alone = only(shipped.predict([LYSOZYME]))
    among = shipped.predict(["", LYSOZYME, "?", CHAIN, "W" * 30_000])
    assert answer(among[1]) == answer(alone)


def test_answers_do_not_depend_on_batch_or_order(shipped: Predictor, odd_sequences: list[str]) -> None:
    sequences = odd_sequences[:300]
    together = shipped.predict(sequences)
    order = np.random.default_rng(1).permutation(len(sequences))
    shuffled = shipped.predict([sequences[k] for k in order])
    assert [answer(together[k]) for k in order] == [answer(row) for row in shuffled]
    assert [answer(only(shipped.predict([s]))) for s in sequences[:40]] == [answer(row) for row in together[:40]]


def test_answers_do_not_depend_on_threads(builtin: Predictor, odd_sequences: list[str]) -> None:
    assert Predictor.builtin(threads=2).predict(odd_sequences) == builtin.predict(odd_sequences)


def test_growth_temperatures_do_not_spill_onto_neighbours(builtin: Predictor, odd_sequences: list[str]) -> None:
    temperatures = [None, 10.0, 37.0, 80.0]
    records = [Record(str(k), s, temperatures[k % 4]) for k, s in enumerate(odd_sequences[:80])]
    together = builtin.predict(records)
    assert together == [only(builtin.predict([record])) for record in records]


def test_text_and_records_get_the_same_rows_but_for_the_name(builtin: Predictor) -> None:
    from_text = builtin.predict([LYSOZYME, CHAIN])
    from_records = builtin.predict([Record("a", LYSOZYME), Record("b", CHAIN)])
    mixed = builtin.predict([LYSOZYME, Record("b", CHAIN)])
    assert [row.id for row in from_text] == ["sequence_1", "sequence_2"]
    assert [row.id for row in mixed] == ["sequence_1", "b"]
    assert [answer(r) for r in from_text] == [answer(r) for r in from_records] == [answer(r) for r in mixed]


def test_one_sequence_may_be_given_as_it_is(builtin: Predictor) -> None:
    assert builtin.predict(LYSOZYME) == builtin.predict([LYSOZYME])


def test_one_record_may_be_given_as_it_is(builtin: Predictor) -> None:
    assert builtin.predict(Record("a", LYSOZYME)) == builtin.predict([Record("a", LYSOZYME)])  # type: ignore[arg-type]


def test_nothing_in_nothing_out(builtin: Predictor) -> None:
    assert builtin.predict([]) == []
    assert list(builtin.predict_records(iter(()))) == []


@pytest.mark.parametrize("container", [list, tuple, iter, np.array])
def test_any_iterable_of_sequences_will_do(builtin: Predictor, container: Callable[[list[str]], Any]) -> None:
    assert builtin.predict(container([LYSOZYME, CHAIN])) == builtin.predict([LYSOZYME, CHAIN])


@pytest.mark.parametrize("missing", [None, float("nan"), 5, b"MKVLAARRWQ"])
def test_a_value_that_is_no_text_is_a_row_with_an_error(builtin: Predictor, missing: object) -> None:
    # a table column with holes gives None or NaN
    rows = builtin.predict([LYSOZYME, missing, CHAIN])  # type: ignore[list-item]
    assert [row.status for row in rows] == ["ok", "error", "ok"]
    assert_well_formed(rows[1])


def test_strict_stops_at_the_first_bad_record_and_names_it(builtin: Predictor) -> None:
    with pytest.raises(SequenceError, match=r"^record b: '1' at position 4 is not an amino acid$"):
        builtin.predict([Record("a", LYSOZYME), Record("b", "MKV1LAARRWQ"), Record("c", "")], strict=True)
    assert len(builtin.predict([LYSOZYME, CHAIN], strict=True)) == 2


def test_strict_also_stops_at_a_record_that_could_not_be_read(builtin: Predictor) -> None:
    with pytest.raises(SequenceError, match="record a: line 3: a quote is not closed"):
        builtin.predict([Record("a", LYSOZYME, problem="line 3: a quote is not closed")], strict=True)


def test_a_record_that_could_not_be_read_is_a_row_with_its_problem(builtin: Predictor) -> None:
    row = only(builtin.predict([Record("a", LYSOZYME, problem="line 3: a quote is not closed")]))
    assert_well_formed(row)
    assert (row.status, row.note) == ("error", "line 3: a quote is not closed")


def test_growth_temperature_of_a_record_comes_before_the_global_one(shipped: Predictor, examples: Path) -> None:
    assert shipped.takes_growth_temperature
    chains = ["".join(part.split("\n")[1:]) for part in examples.read_text().split(">")[1:]]

    def rows(own: float | None, for_all: float | None = None) -> list[Prediction]:
        return shipped.predict([Record("", chain, own) for chain in chains], growth_temperature=for_all)

    cold, hot, unknown = rows(15.0), rows(85.0), rows(None)
    assert rows(15.0, for_all=85.0) == cold
    assert rows(None, for_all=85.0) == hot
    assert unknown not in (cold, hot)
    rise = [after.tm_celsius - before.tm_celsius for before, after in zip(cold, hot, strict=True)]  # type: ignore[operator]
    assert np.mean(rise) > 1


@pytest.mark.parametrize("celsius", [-20.1, 150.1, -273.15, 310.0, float("nan"), float("inf")])
def test_a_global_growth_temperature_out_of_range_is_refused(builtin: Predictor, celsius: float) -> None:
    with pytest.raises(ConfigError, match=rf"growth temperature of {celsius} degC is not between -20 and 150"):
        builtin.predict([LYSOZYME], growth_temperature=celsius)


@pytest.mark.parametrize("celsius", [-20.0, 150.0])
def test_growth_temperatures_at_the_bounds_are_accepted(builtin: Predictor, celsius: float) -> None:
    assert_well_formed(only(builtin.predict([LYSOZYME], growth_temperature=celsius)))


@pytest.mark.parametrize("celsius", [-273.15, 310.0, float("inf")])
def test_a_records_growth_temperature_out_of_range_is_its_own_error(builtin: Predictor, celsius: float) -> None:
    # 310: somebody gave kelvin
    rows = builtin.predict([Record("a", LYSOZYME, celsius), Record("b", LYSOZYME)])
    assert [row.status for row in rows] == ["error", "ok"]
    assert str(celsius) in rows[0].note


def test_a_growth_temperature_that_is_not_a_number_is_unknown(builtin: Predictor) -> None:
    # how a table says that it does not know
    unknown, nan = builtin.predict([Record("a", LYSOZYME), Record("a", LYSOZYME, float("nan"))])
    assert nan == unknown


def test_more_coverage_widens_every_interval_about_the_same_value(shipped: Predictor) -> None:
    widths = []
    for coverage in (0.5, 0.8, 0.9, 0.95):
        rows = shipped.predict([LYSOZYME, CHAIN, "W" * 50], coverage=coverage)
        for row in rows:
            assert_well_formed(row)
        widths.append([row.tm_upper_celsius - row.tm_lower_celsius for row in rows])  # type: ignore[operator]
        assert [row.tm_celsius for row in rows] == [r.tm_celsius for r in shipped.predict([LYSOZYME, CHAIN, "W" * 50])]
    for narrower, wider in itertools.pairwise(widths):
        assert all(a < b for a, b in zip(narrower, wider, strict=True))


@pytest.mark.parametrize("coverage", [0, 1, -1, 90, 0.99999, float("nan")])
def test_a_coverage_that_cannot_be_promised_is_refused(builtin: Predictor, coverage: float) -> None:
    with pytest.raises(ConfigError, match="coverage"):
        builtin.predict([LYSOZYME], coverage=coverage)
    with pytest.raises(ConfigError, match="coverage"):
        builtin.predict([], coverage=coverage)


def test_streaming_refuses_bad_settings_before_the_first_record_is_read(builtin: Predictor) -> None:
    with pytest.raises(ConfigError):
        builtin.predict_records([], coverage=2)


def test_streaming_reads_no_more_than_a_chunk_ahead(builtin: Predictor) -> None:
    read = 0

    def endless() -> Iterator[Record]:
        nonlocal read
        for k in itertools.count():
            read += 1
            yield Record(str(k), CHAIN if k % 3 else "")

    rows = builtin.predict_records(endless())
    assert read == 0
    assert [next(rows).id for _ in range(10)] == [str(k) for k in range(10)]
    assert read <= 1024


def test_streaming_holds_only_few_long_chains_at_a_time(builtin: Predictor) -> None:
    read = 0

    def long_ones() -> Iterator[Record]:
        nonlocal read
        while True:
            read += 1
            yield Record("long", "MKV1" * 100_000)  # refused, so that the test is quick

    next(builtin.predict_records(long_ones()))
    assert read <= 6


def test_chunks_leave_no_seam(builtin: Predictor) -> None:
    lengths = [20 + k % 7 for k in range(1030)]
    rows = list(builtin.predict_records(Record(str(k), CHAIN[:n]) for k, n in enumerate(lengths)))
    assert [(row.id, row.length) for row in rows] == [(str(k), n) for k, n in enumerate(lengths)]
    first = {n: answer(rows[k]) for k, n in reversed(list(enumerate(lengths)))}
    assert all(answer(row) == first[n] for row, n in zip(rows, lengths, strict=True))


def test_dna_is_answered_but_flagged(shipped: Predictor) -> None:
    row = only(shipped.predict(["ACGTTGCAAC" * 30]))
    assert_well_formed(row)
    assert row.in_domain is False
    assert "looks like DNA" in row.note


def test_all_unknown_residues_are_an_error(builtin: Predictor) -> None:
    row = only(builtin.predict(["X" * 300]))
    assert_well_formed(row)
    assert row.note == "only 0 of 300 residues are known; 10 are needed"


@pytest.mark.parametrize("chain", ["A" * 10, "A" * 300, "W" * 11, "P" * 5000, "K" * 60, "D" * 60])
def test_a_homopolymer_is_answered_but_flagged(shipped: Predictor, chain: str) -> None:
    row = only(shipped.predict([chain]))
    assert_well_formed(row)
    assert row.in_domain is False


def test_a_chain_as_long_as_titin_is_answered_whole_and_flagged(shipped: Predictor) -> None:
    row = only(shipped.predict(["".join(np.random.default_rng(0).choice(list(AMINO_ACIDS), 35_000))]))
    assert_well_formed(row)
    assert row.length == 35_000
    assert "longer than the proteins learned from" in row.note


def test_half_unknown_residues_are_flagged_with_their_share(shipped: Predictor) -> None:
    row = only(shipped.predict([LYSOZYME + "X" * 129]))
    assert_well_formed(row)
    assert row.length == 258
    assert row.status == "warning"
    assert "129 X left out" in row.note
    assert "50% non-standard residues" in row.note


@given(st.lists(st.one_of(st.text(), st.text(AMINO_ACIDS + "BJOUXZ*-. ", max_size=60)), max_size=5))
@settings(max_examples=60)
def test_any_text_gives_a_well_formed_row(texts: list[str]) -> None:
    rows = PREDICTOR.predict(texts)
    assert len(rows) == len(texts)
    for row in rows:
        assert_well_formed(row)


PREDICTOR = Predictor.builtin(threads=1)


@given(st.text(AMINO_ACIDS, min_size=10, max_size=80), st.one_of(st.none(), st.floats(-20, 150)), st.floats(0.05, 0.98))
@settings(max_examples=60)
def test_any_protein_at_any_setting_gives_a_well_formed_row(text: str, growth: float | None, coverage: float) -> None:
    row = only(PREDICTOR.predict([text], growth_temperature=growth, coverage=coverage))
    assert row.status == "ok"
    assert_well_formed(row)


def test_columns_are_the_fields_of_a_row_in_order() -> None:
    assert [*COLUMNS, "similarity"] == [field.name for field in fields(Prediction)]


def test_saving_and_loading_changes_nothing(shipped: Predictor, tmp_path: Path, odd_sequences: list[str]) -> None:
    shipped.save(tmp_path / "saved")
    loaded = Predictor.load(tmp_path / "saved", threads=1)
    records = [Record(str(k), s, 60.0 if k % 2 else None) for k, s in enumerate(odd_sequences[:60])]
    assert loaded.predict(records) == shipped.predict(records)
    assert loaded.digest == shipped.digest
    assert loaded.name == shipped.name


def test_a_saved_predictor_holds_no_code(shipped: Predictor) -> None:
    allowed = {".json", ".onnx", ".md", ".csv", ".png", ".svg"}
    assert {path.suffix for path in shipped.folder.iterdir()} <= allowed


def test_a_shipped_predictor_is_small(shipped: Predictor) -> None:
    assert sum(path.stat().st_size for path in shipped.folder.rglob("*")) < 15e6


def test_digests_tell_predictors_apart() -> None:
    digests = {Predictor.builtin(name).digest for name in Predictor.builtin_names()}
    assert len(digests) == len(Predictor.builtin_names())


def test_saving_over_something_is_refused(builtin: Predictor, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("kept")
    for place in ("there", "file", "file/below"):
        with pytest.raises(ArtifactError, match="cannot save"):
            builtin.save(tmp_path / place)
    assert (tmp_path / "file").read_text() == "kept"
    assert list((tmp_path / "there").iterdir()) == []


def test_a_name_means_the_built_in_and_a_path_means_a_folder(
    builtin: Predictor, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Predictor.load("builtin").digest == builtin.digest
    assert Predictor.load(copied).digest == builtin.digest
    # a folder that happens to be called 'builtin' must not take the place of the default predictor
    (copied.parent / "builtin").mkdir()
    monkeypatch.chdir(copied.parent)
    assert Predictor.load("builtin").digest == builtin.digest


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ArtifactError, match=r"no built-in predictor 'tm51'.*builtin.*tm50"):
        Predictor.builtin("tm51")


@pytest.mark.parametrize("where", ["nowhere", "", "a file"])
def test_what_is_no_predictor_folder_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "a file").write_text("text")
    with pytest.raises(ArtifactError):
        Predictor.load(tmp_path / where)


def test_a_missing_head_is_named(copied: Path) -> None:
    (copied / "head_plain.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"head_plain\.onnx.*missing"):
        Predictor(copied).predict([LYSOZYME])


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_one_flipped_bit_in_a_head_is_noticed(copied: Path, place: int) -> None:
    head = copied / "head_plain.onnx"
    content = bytearray(head.read_bytes())
    content[place] ^= 1
    head.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"head_plain\.onnx is damaged"):
        Predictor(copied).predict([LYSOZYME])


def test_a_truncated_head_is_noticed(copied: Path) -> None:
    head = copied / "head_with_growth_temperature.onnx"
    head.write_bytes(head.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="damaged"):
        Predictor(copied).predict([LYSOZYME], growth_temperature=37)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"3", b"null", b"[]", b'"text"', b"{}"])
def test_a_manifest_that_is_no_manifest_is_refused_by_path(copied: Path, content: bytes) -> None:
    (copied / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=MANIFEST):
        Predictor(copied)


def test_another_format_is_refused_by_number(copied: Path) -> None:
    change_manifest(copied, ("format",), 2)
    with pytest.raises(ArtifactError, match="format 2; this version reads format 1"):
        Predictor(copied)


def change_manifest(folder: Path, path: tuple[str, ...], value: object) -> None:
    """Set a key of the manifest; Ellipsis removes it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    *parents, last = path
    place = manifest
    for step in parents:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    (folder / MANIFEST).write_text(json.dumps(manifest))


def keys(mapping: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in mapping.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys(value, (*above, key))


NEEDED = [path for path in keys(PREDICTOR.manifest) if path[0] not in {"description", "training", "reference"}]


def refuses_or_answers(folder: Path) -> None:
    """A predictor with a changed manifest may still work; what it must not do is fail in a way nobody can read."""
    try:
        rows = Predictor(folder, threads=1).predict([Record("a", LYSOZYME, 37.0), Record("b", LYSOZYME)])
    except EnzymeStabilityError as error:
        assert str(error)  # noqa: PT017 - either outcome serves
    else:
        assert len(rows) == 2


@pytest.mark.parametrize("path", NEEDED, ids=".".join)
def test_a_manifest_that_lacks_a_key_is_refused(copied: Path, path: tuple[str, ...]) -> None:
    change_manifest(copied, path, ...)
    refuses_or_answers(copied)


@pytest.mark.parametrize("path", [("format",), ("encoder",), ("heads",), ("intervals",), ("domain",)], ids=".".join)
def test_a_manifest_that_lacks_a_part_is_refused_by_its_name(copied: Path, path: tuple[str, ...]) -> None:
    change_manifest(copied, path, ...)
    with pytest.raises(ArtifactError, match=f"lacks {path[0]}"):
        Predictor(copied)


@pytest.mark.parametrize("value", [None, "text", [], {}, -1])
def test_a_manifest_with_a_value_of_another_kind_is_refused(copied: Path, value: object) -> None:
    whole = copy.deepcopy(PREDICTOR.manifest)
    for path in NEEDED:
        (copied / MANIFEST).write_text(json.dumps(whole))
        change_manifest(copied, path, value)
        refuses_or_answers(copied)


@pytest.mark.parametrize("blocks", [["amino_acids"], [], ["nothing"]])
def test_descriptors_that_do_not_fit_the_head_are_refused(copied: Path, blocks: list[str]) -> None:
    change_manifest(copied, ("encoder", "blocks"), blocks)
    with pytest.raises(ArtifactError):
        Predictor(copied).predict([LYSOZYME])


def test_a_predictor_without_a_growth_head_ignores_growth_temperatures(copied: Path) -> None:
    manifest = json.loads((copied / MANIFEST).read_text())
    for part in ("heads", "intervals"):
        manifest[part] = {"plain": manifest[part]["plain"]}
    (copied / MANIFEST).write_text(json.dumps(manifest))
    (copied / "head_with_growth_temperature.onnx").unlink()
    predictor = Predictor(copied)
    assert not predictor.takes_growth_temperature
    assert answer(only(predictor.predict([LYSOZYME], growth_temperature=80.0))) == answer(
        only(predictor.predict([LYSOZYME]))
    )


def test_a_predictor_is_read_from_a_path_with_blanks_and_accents(copied: Path) -> None:
    elsewhere = copied.parent / "mes enzymes é"
    shutil.move(copied, elsewhere)
    assert_well_formed(only(Predictor(str(elsewhere)).predict([LYSOZYME])))
