"""The leakage report counts relatives, near-copies and copies of test proteins among training proteins."""

from __future__ import annotations

import json

import pytest
from made_up_proteins import FOUNDERS, protein, relative

from enzyme_stability.data.leakage import LeakageReport, leakage
from enzyme_stability.errors import DataError

pytestmark = pytest.mark.usefixtures("mmseqs")

REPEATS = "QPQQ" * 40
TEST = [
    FOUNDERS[0],  # in the training table as it is
    relative(FOUNDERS[1], 0.95),
    relative(FOUNDERS[2], 0.6),
    protein(250),
    REPEATS,  # also in the training table; a masked search finds no seed in it
    FOUNDERS[3] + protein(400),  # its relative covers less than half of it
]
TRAIN = [REPEATS, *FOUNDERS]


@pytest.fixture(scope="module")
def report() -> LeakageReport:
    return leakage(TRAIN, TEST, threads=1)


def test_relatives_are_counted_at_each_identity(report: LeakageReport) -> None:
    assert report.near == {0.3: 4, 0.5: 4, 0.9: 3}
    assert report.duplicates == 2


def test_each_test_protein_knows_its_best_identity_and_relative(report: LeakageReport) -> None:
    assert report.best_identity == pytest.approx([1, 0.95, 0.6, 0, 1, 0], abs=0.02)
    assert report.nearest.tolist() == [1, 2, 3, -1, 0, -1]


def test_the_report_is_plain_json_and_a_table_for_people(report: LeakageReport) -> None:
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["near"][0] == {"identity": 0.3, "proteins": 4, "share": 0.6667}
    assert "6 test proteins with a relative among 5 training proteins" in str(report)
    assert ">= 90% identical" in str(report)
    assert "50.0%" in str(report)


def test_an_empty_table_is_an_error() -> None:
    with pytest.raises(DataError, match="0 training and 6 test proteins"):
        leakage([], TEST)
