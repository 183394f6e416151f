"""What the service answers: on every route the rows that the package itself gives."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_service import LYSOZYME, figure, finished, served_here

from enzyme_stability import Predictor, Record, cli
from enzyme_stability.prediction import COLUMNS, Prediction

Sequences = dict[str, str]


def as_json(rows: list[Prediction]) -> list[dict[str, Any]]:
    return [{name: value for name, value in asdict(row).items() if name in COLUMNS} for row in rows]


def asked(sequences: Sequences, **settings: Any) -> dict[str, Any]:
    return {"records": [{"id": name, "sequence": sequence} for name, sequence in sequences.items()], **settings}


def predicted(client: httpx.Client, sequences: Sequences, **settings: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/predict", json=asked(sequences, **settings)).raise_for_status().json()
    rows: list[dict[str, Any]] = answer["predictions"]
    return rows


def sent(client: httpx.Client, route: str, data: bytes, name: str = "proteins.fasta", **query: Any) -> httpx.Response:
    return client.post(route, files={"file": (name, data)}, params=query)


def rows_of(answer: httpx.Response) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = answer.raise_for_status().json()["predictions"]
    return rows


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    """The command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["enzyme-stability", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code


# One model, whichever way it is asked


def test_an_answer_names_the_model_exactly_and_holds_the_rows_of_the_predictor(
    client: httpx.Client, sequences: Sequences, builtin: Predictor
) -> None:
    answer = client.post("/v1/predict", json=asked(sequences)).raise_for_status().json()
    assert (answer["model"]["name"], answer["model"]["sha256"]) == ("builtin", builtin.digest)
    assert answer["coverage"] == 0.9
    records = [Record(name, sequence) for name, sequence in sequences.items()]
    assert answer["predictions"] == as_json(builtin.predict(records))


def test_a_protein_gets_the_same_answer_alone_and_among_many_at_once(
    client: httpx.Client, sequences: Sequences
) -> None:
    together = predicted(client, sequences)
    alone = [{name: sequence} for name, sequence in sequences.items()]
    assert [predicted(client, one)[0] for one in alone] == together
    with ThreadPoolExecutor(12) as pool:
        assert [rows[0] for rows in pool.map(lambda one: predicted(client, one), alone * 5)] == together * 5


@pytest.mark.parametrize(
    "changed",
    [
        lambda fasta: fasta,
        gzip.compress,
        lambda fasta: fasta.replace(b"\n", b"\r\n"),
        lambda fasta: b"\xef\xbb\xbf" + fasta.replace(b"\n", b"\r"),
    ],
    ids=["plain", "gzip", "crlf", "mark-and-cr"],
)
def test_a_file_gives_the_rows_of_its_records(
    client: httpx.Client, sequences: Sequences, examples: Path, changed: Callable[[bytes], bytes]
) -> None:
    answer = sent(client, "/v1/predict/file", changed(examples.read_bytes()))
    assert rows_of(answer) == predicted(client, sequences)


def test_a_table_gives_the_rows_of_the_columns_that_are_named(client: httpx.Client, sequences: Sequences) -> None:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["name", "tag", "chain", "grows_at"])
    writer.writerows([name, "MHHHHHH", sequence, 60] for name, sequence in sequences.items())
    columns = {"column": "chain", "id_column": "name", "growth_temperature_column": "grows_at"}
    there = rows_of(sent(client, "/v1/predict/file", table.getvalue().encode(), "table.csv", **columns))
    tabs = table.getvalue().replace(",", "\t").encode()
    assert rows_of(sent(client, "/v1/predict/file", tabs, "x", **columns)) == there
    assert there == predicted(client, sequences, growth_temperature_celsius=60)
    assert there != predicted(client, sequences)
    refused = sent(client, "/v1/predict/file", table.getvalue().encode(), column="Chain_A")
    assert refused.status_code == 422
    assert "Chain_A" in refused.json()["error"]["message"]


def test_the_result_of_a_job_is_the_text_that_the_command_writes(
    client: httpx.Client, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proteins = tmp_path / "proteins.fasta"
    proteins.write_bytes(examples.read_bytes() + b'>"quoted,_with_comma"\nMKU1\n>again\n' + LYSOZYME.encode())
    for kind, media in (("csv", "text/csv"), ("jsonl", "application/jsonl")):
        run(monkeypatch, "predict", proteins, "-o", tmp_path / f"out.{kind}", "--threads", "1", "--coverage", "0.8")
        job = sent(client, "/v1/jobs", proteins.read_bytes(), coverage=0.8)
        assert job.status_code == 202
        assert (job.json()["state"], job.json()["records"]) == ("queued", 14)
        ended = finished(client, job.json()["id"])
        assert (ended["state"], ended["finished"], ended["message"]) == ("done", 14, "")
        result = client.get(f"/v1/jobs/{ended['id']}/result", params={"format": kind})
        assert result.headers["content-type"].partition(";")[0] == media
        assert result.content == (tmp_path / f"out.{kind}").read_bytes()


def test_a_job_in_json_takes_what_predict_takes(client: httpx.Client, sequences: Sequences) -> None:
    body = asked(sequences, coverage=0.6, growth_temperature_celsius=70)
    job = client.post("/v1/jobs", json=body).raise_for_status().json()
    ended = finished(client, job["id"])
    rows = client.get(f"/v1/jobs/{ended['id']}/result?format=jsonl").text.splitlines()
    assert [json.loads(row) for row in rows] == predicted(client, sequences, **{k: body[k] for k in list(body)[1:]})


def test_a_job_may_have_more_records_than_are_answered_at_once(tmp_path: Path) -> None:
    with served_here(database=f"sqlite:///{tmp_path / 'service.db'}", most_records=100) as client:
        sequences = {str(k): LYSOZYME for k in range(600)}
        refused = client.post("/v1/predict", json=asked(sequences))
        assert (refused.status_code, refused.json()["error"]["kind"]) == (413, "too_large")
        assert "600 sequences are more than the 100" in refused.json()["error"]["message"]
        ended = finished(client, client.post("/v1/jobs", json=asked(sequences)).json()["id"])
        assert (ended["state"], ended["finished"]) == ("done", 600)


def test_a_job_that_is_cancelled_has_no_result(tmp_path: Path, sequences: Sequences) -> None:
    with served_here(database=f"sqlite:///{tmp_path / 'service.db'}") as client:
        job = client.post("/v1/jobs", json=asked(sequences | {str(k): LYSOZYME for k in range(9000)})).json()["id"]
        early = client.get(f"/v1/jobs/{job}/result")
        assert (early.status_code, early.json()["error"]["kind"]) == (409, "not_done")
        assert client.delete(f"/v1/jobs/{job}").json()["state"] == "cancelled"
        assert client.get(f"/v1/jobs/{job}/result").status_code == 409
        unknown = client.get(f"/v1/jobs/{'0' * 32}")
        assert (unknown.status_code, unknown.json()["error"]["kind"]) == (404, "no_such_job")


def test_old_clients_get_the_plain_list(client: httpx.Client, builtin: Predictor) -> None:
    expected = [builtin.predict(LYSOZYME)[0].tm_celsius, None]
    for address in ("/predict/", "/predict"):
        assert client.post(address, json={"data": [LYSOZYME, "no protein!"]}).json() == expected
    assert client.post("/predict/", json={"data": LYSOZYME, "else": 1}).json() == expected[:1]


# Sequences, temperatures, intervals


def test_the_residue_policy_holds_here_as_everywhere(client: httpx.Client, builtin: Predictor) -> None:
    odd = {
        "lower": LYSOZYME.lower(),
        "stop": LYSOZYME + "*",
        "stop inside": LYSOZYME[:50] + "*" + LYSOZYME[50:],
        "gaps": f"--{LYSOZYME[:40]}...{LYSOZYME[40:]}-",
        "blanks": " ".join(LYSOZYME),
        "selenocysteine": LYSOZYME[:60] + "U" + LYSOZYME[60:],
        "unknown residues": "X" * 5 + LYSOZYME,
        "one residue": "M",
        "none": "",
        "other letters": "MÄRZ" * 10,
        "a\tname, \"quoted\" \u2028 \U0001f9ec": LYSOZYME,
    }  # fmt: skip
    rows = predicted(client, odd)
    assert [row["id"] for row in rows] == list(odd)
    assert [row | {"id": ""} for row in rows] == [row | {"id": ""} for row in as_json(builtin.predict(odd.values()))]
    plain, status = predicted(client, {"lower": LYSOZYME})[0], {row["id"]: row["status"] for row in rows}
    assert rows[0] == plain
    assert rows[1] | {"id": "lower"} == plain
    assert [name for name in odd if status[name] == "error"] == ["stop inside", "one residue", "none", "other letters"]
    assert rows[7]["tm_celsius"] is None
    assert rows[7]["note"].startswith("a length of 1 is too short")


def test_records_without_a_name_are_numbered_and_duplicates_are_answered_each(client: httpx.Client) -> None:
    records = [{"sequence": LYSOZYME}, {"sequence": LYSOZYME}, {"id": "record_1", "sequence": LYSOZYME}]
    rows = client.post("/v1/predict", json={"records": records}).json()["predictions"]
    assert [row["id"] for row in rows] == ["record_1", "record_2", "record_1"]
    assert len({row["tm_celsius"] for row in rows}) == 1


def test_the_longest_chain_is_answered_and_a_longer_one_is_a_row_that_says_so(client: httpx.Client) -> None:
    longest = (LYSOZYME * 400)[:40_000]
    first, second, third = predicted(client, {"longest": longest, "longer": longest + "A", "short": LYSOZYME})
    assert (first["length"], first["status"], first["in_domain"]) == (40_000, "ok", False)
    assert (second["status"], second["tm_celsius"], third["status"]) == ("error", None, "ok")
    assert "40,000" in second["note"]
    of_file = rows_of(sent(client, "/v1/predict/file", f">a\n{longest}A\n>b\n{LYSOZYME}\n".encode()))
    assert [row["status"] for row in of_file] == ["error", "ok"]


def test_the_growth_temperature_of_a_record_counts_before_the_common_one(
    client: httpx.Client, builtin: Predictor
) -> None:
    records = [{"sequence": LYSOZYME, "growth_temperature_celsius": 85}, {"sequence": LYSOZYME}]
    answer = client.post("/v1/predict", json={"records": records, "growth_temperature_celsius": 20}).json()
    expected = [builtin.predict(LYSOZYME, growth_temperature=t)[0].tm_celsius for t in (85, 20)]
    assert [row["tm_celsius"] for row in answer["predictions"]] == expected
    assert expected[0] > expected[1]
    of_file = rows_of(sent(client, "/v1/predict/file", f">a\n{LYSOZYME}".encode(), growth_temperature=20))
    assert of_file[0]["tm_celsius"] == expected[1]


def test_an_interval_widens_with_the_coverage_asked_for(client: httpx.Client, builtin: Predictor) -> None:
    def width(coverage: float) -> float:
        row = predicted(client, {"a": LYSOZYME}, coverage=coverage)[0]
        assert [row] == as_json(builtin.predict([Record("a", LYSOZYME)], coverage=coverage))
        return float(row["tm_upper_celsius"] - row["tm_lower_celsius"])

    assert width(0.5) < width(0.8) < width(0.99)
    with ThreadPoolExecutor(8) as pool:  # what is asked for at once is not mixed up
        together = list(pool.map(width, (0.5, 0.8, 0.99) * 8))
    assert together == [width(0.5), width(0.8), width(0.99)] * 8


# Scans, feedback, the service itself


def test_a_scan_has_the_rows_and_the_shortlist_of_the_command(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.fasta").write_text(f">lysozyme\n{LYSOZYME}\n")
    shortlist = ("--shortlist", tmp_path / "best.jsonl", "--size", "7", "--exclude", "CP")
    numbered = ("--offset", "18", "--keep", "53,70-90")
    run(monkeypatch, "scan", tmp_path / "in.fasta", "-o", tmp_path / "all.jsonl", *shortlist, *numbered)

    def table(name: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        return [{key: value for key, value in row.items() if key != "id"} for row in rows]

    body = {"id": "lysozyme", "sequence": LYSOZYME, "offset": 18, "keep": [53, *range(70, 91)]}
    answer = client.post("/v1/scan", json=body | {"exclude": "CP", "size": 7}).raise_for_status().json()
    assert answer["rows"] == table("all.jsonl")
    assert len(answer["rows"]) == 19 * len(LYSOZYME)
    best = [{k: v for k, v in row.items() if k != "id"} for row in answer["shortlist"]]
    assert best == table("best.jsonl")
    assert len(best) == 7
    assert not {row["position"] for row in best} & {53, *range(70, 91)}
    assert not {row["substitution"] for row in best} & set("CP")
    assert "positive" in answer["sign"]
    outside = client.post("/v1/scan", json=body | {"keep": [5]})
    assert (outside.status_code, outside.json()["error"]["kind"]) == (422, "bad_variant")


def test_scans_wait_their_turn_and_too_many_are_told_to_come_back(sequences: Sequences) -> None:
    with served_here(queue_scans=1) as client, ThreadPoolExecutor(6) as pool:
        gate = threading.Barrier(6)

        def scan(_: int) -> httpx.Response:
            gate.wait(10)
            return client.post("/v1/scan", json={"sequence": max(sequences.values(), key=len)})

        answers = list(pool.map(scan, range(6)))
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)


def test_what_was_measured_is_taken_and_set_beside_the_prediction(client: httpx.Client) -> None:
    record = {"id": "mine", "sequence": LYSOZYME, "measured_tm_celsius": 75.5, "source": "here alone"}
    bad = {"id": "bad", "sequence": "MK1", "measured_tm_celsius": 50}
    answer = client.post("/v1/feedback", json={"records": [record, bad]}).raise_for_status().json()
    assert answer["accepted"] == 1
    assert [(row["id"], row["status"]) for row in answer["rows"]] == [("mine", "ok"), ("bad", "error")]


def test_the_card_says_what_answers_and_within_which_limits(client: httpx.Client, builtin: Predictor) -> None:
    card = client.get("/v1/model").raise_for_status().json()
    assert (card["name"], card["sha256"], card["takes_growth_temperature"]) == ("builtin", builtin.digest, True)
    assert card["card"] == (builtin.folder / "CARD.md").read_text()
    assert card["limits"]["most_records"] == 10_000
    assert card["limits"]["longest_sequence"] == 40_000


def test_the_metrics_count_what_was_answered(client: httpx.Client) -> None:
    before = figure(client, 'sequences_total{status="ok"}')
    predicted(client, {"a": LYSOZYME, "b": LYSOZYME, "c": "MK1"})
    assert figure(client, 'sequences_total{status="ok"}') == before + 2


def test_it_says_that_it_is_alive_and_ready_and_has_a_page(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for asset in ("app.js", "style.css"):
        assert f"page/{asset}" in page.text
        assert client.get(f"/page/{asset}").status_code == 200
