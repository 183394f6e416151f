"""The client against the real service: the rows of the predictor itself, patience with trouble that passes, one
sentence for trouble that does not."""

from __future__ import annotations

import datetime as dt
import ipaddress
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from enzyme_stability import Predictor, Record
from enzyme_stability.client import Client, Job
from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.errors import (
    ConfigError,
    DataError,
    EnzymeStabilityError,
    OverloadedError,
    SequenceError,
    TooLargeError,
)
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.serving.access import create_key, revoke_key
from enzyme_stability.serving.answers import error_response
from enzyme_stability.serving.app import create_app
from served_app import running

CHAIN = AMINO_ACIDS * 5
Step = Callable[[Any], Response | None]


class Moody:
    """Passes requests on to the service behind, except where ``mood`` has an answer of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.mood: Iterator[Step] = iter(())
        self.asked: list[tuple[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        body = b"".join(message.get("body", b"") for message in messages)
        content = json.loads(body) if body.startswith(b"{") else None
        self.asked.append((scope["path"], content))
        response = next(self.mood, lambda _: None)(content)
        waiting = iter(messages)

        async def again() -> Any:
            return next(waiting, None) or await receive()

        await (response or self.app)(scope, again, send)


def refused(status: int, headers: dict[str, str] | None = None, message: str = "not now") -> Step:
    return lambda _: error_response(status, "some_kind", message, headers)


def passed(_: Any) -> None:
    return None


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Moody:
    folder = tmp_path_factory.mktemp("service")
    config = ServingConfig(threads=1, database=f"sqlite:///{folder / 'service.db'}", most_records=400, watch_minutes=0)
    return Moody(create_app(config))


@pytest.fixture(scope="module")
def url(moody: Moody) -> Iterator[str]:
    with running(moody) as address:
        yield address


@pytest.fixture
def client(url: str, moody: Moody) -> Iterator[Client]:
    """A client that has met the service already."""
    moody.mood = iter(())
    with Client(url, retries=2) as client:
        client.model()
        moody.asked.clear()
        yield client
    moody.mood = iter(())


@pytest.fixture(scope="module")
def proteins() -> list[Record]:
    """A thousand chains, good, changed and bad, some with growth temperatures and odd names."""
    choose = random.Random(11)
    records = []
    for k in range(1000):
        chain = "".join(choose.choices(AMINO_ACIDS + "XU", k=choose.randint(5, 300)))
        name = choose.choice([f"protein_{k}", "same", f"é|ü,;\"'{k}", "long" * 100, "\ud800", "", "<b>"])
        growth = choose.choice([None, None, 37.0, 71.5, float("nan")])
        records.append(Record(name, chain, growth, choose.choice(["", "", "", f"line {k}: it was cut"])))
    return records


def parts_of(moody: Moody) -> list[int]:
    """How many records each request for predictions held."""
    return [len(content["records"]) for path, content in moody.asked if path == "/v1/predict"]


def refusal(ask: Callable[[], object], kind: type[EnzymeStabilityError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        ask()
    message = str(caught.value)
    assert type(caught.value) is kind or kind is DataError
    assert message.isprintable()
    return message


# The same answers


def test_rows_are_those_of_the_predictor(client: Client, builtin: Predictor, proteins: list[Record]) -> None:
    assert client.predict(proteins) == builtin.predict(proteins)
    settings: dict[str, Any] = {"growth_temperature": 55.5, "coverage": 0.8}
    assert client.predict(proteins[:200], **settings) == builtin.predict(proteins[:200], **settings)


def test_sequences_alone_are_named_as_the_predictor_names_them(client: Client, builtin: Predictor) -> None:
    odd: list[Any] = [CHAIN, "MK1", None, "\ud800" * 20]
    assert client.predict(odd)[:3] == builtin.predict(odd)[:3]
    assert client.predict(odd)[3].status == "error"
    assert client.predict(CHAIN) == builtin.predict(CHAIN)
    assert client.predict([]) == []


def test_a_growth_temperature_out_of_range_costs_its_record_only(client: Client, builtin: Predictor) -> None:
    records = [Record("a", CHAIN), Record("b", CHAIN, 500.0), Record("c", CHAIN, float("inf")), Record("d", CHAIN)]
    assert client.predict(records) == builtin.predict(records)


@pytest.mark.parametrize(
    "settings",
    [
        {"growth_temperature": 500.0},
        {"growth_temperature": float("nan")},
        {"coverage": 1.5},
        {"coverage": float("nan")},
    ],
)
def test_settings_are_refused_in_the_words_of_the_predictor(
    client: Client, builtin: Predictor, settings: dict[str, Any]
) -> None:
    expected = refusal(lambda: builtin.predict([CHAIN], **settings), ConfigError)
    assert refusal(lambda: client.predict([CHAIN], **settings), ConfigError) == expected


def test_strict_stops_at_the_first_bad_sequence(client: Client, builtin: Predictor) -> None:
    for records in (
        [Record("a", CHAIN), Record("b", "MK1")],
        [Record("c", "", problem="line 3: cut"), Record("a", "X")],
    ):
        expected = refusal(lambda records=records: builtin.predict(records, strict=True), SequenceError)
        assert refusal(lambda records=records: client.predict(records, strict=True), SequenceError) == expected


def test_the_model_tells_its_name_card_and_limits(client: Client, builtin: Predictor) -> None:
    model = client.model()
    assert (model.name, model.sha256) == (builtin.name, builtin.digest)
    assert model.takes_growth_temperature == builtin.takes_growth_temperature
    assert model.card == (builtin.folder / "CARD.md").read_text()
    assert model.limits.most_records == 400


# Part by part


def test_records_are_read_as_rows_are_taken(client: Client) -> None:
    read = itertools.count()
    endless = (Record(f"r{next(read)}", CHAIN) for _ in itertools.count())
    rows = client.predict_records(endless)
    assert [next(rows).id for _ in range(150)] == [f"r{k}" for k in range(150)]
    assert next(read) < 1000


def test_requests_grow_while_they_are_quick_up_to_the_limit_of_the_service(client: Client, moody: Moody) -> None:
    assert len(client.predict([Record("a", CHAIN)] * 1500)) == 1500
    assert parts_of(moody) == [100, 200, 400, 400, 400]


def test_long_chains_are_sent_a_few_at_a_time(client: Client, moody: Moody, builtin: Predictor) -> None:
    records = [Record(str(k), CHAIN * 350) for k in range(20)]  # 35,000 residues each
    assert client.predict(records) == builtin.predict(records)
    assert max(parts_of(moody)) <= 15


def test_a_chain_longer_than_the_service_takes_costs_itself_only(client: Client, builtin: Predictor) -> None:
    a, b, c = client.predict([Record("a", CHAIN), Record("b", CHAIN * 401), Record("c", CHAIN)])
    assert [a, c] == builtin.predict([Record("a", CHAIN), Record("c", CHAIN)])
    assert (b.id, b.status) == ("b", "error")
    assert "40,100 residues are more than the 40,000" in b.note


@pytest.mark.parametrize("status", [413, 504])
def test_what_is_too_much_at_once_is_sent_in_halves(
    client: Client, moody: Moody, builtin: Predictor, proteins: list[Record], status: int
) -> None:
    def at_most_thirty(content: Any) -> Response | None:
        return refused(status)(content) if len(content["records"]) > 30 else None

    moody.mood = itertools.repeat(at_most_thirty)
    good = [record for record in proteins if not record.problem][:200]
    assert client.predict(good) == builtin.predict(good)
    assert parts_of(moody)[:4] == [100, 50, 25, 25]


def test_a_record_that_is_too_much_alone_is_refused(client: Client, moody: Moody) -> None:
    moody.mood = itertools.repeat(refused(413, message="more than is taken here"))
    assert refusal(lambda: client.predict([CHAIN]), TooLargeError) == "more than is taken here"
    moody.mood = itertools.repeat(refused(504))
    assert "no answer in time" in refusal(lambda: client.predict([CHAIN]))


def test_what_was_read_before_a_file_breaks_off_keeps_its_answer(client: Client) -> None:
    def broken() -> Iterator[Record]:
        yield Record("a", CHAIN)
        raise DataError("line 2: the file breaks off")

    rows = client.predict_records(broken())
    assert next(rows).id == "a"
    with pytest.raises(DataError, match="breaks off"):
        next(rows)


def test_rows_of_two_models_are_never_mixed(client: Client, moody: Moody) -> None:
    answer = {"model": {"name": "other", "sha256": "0" * 64}, "coverage": 0.9, "predictions": []}
    moody.mood = iter([passed, lambda _: JSONResponse(answer)])
    rows = client.predict_records([Record("a", CHAIN)] * 150)
    assert sum(1 for _ in itertools.islice(rows, 100)) == 100
    assert "changed its model" in refusal(lambda: next(rows))


def test_an_answer_with_other_rows_than_asked_for_is_refused(client: Client, moody: Moody, builtin: Predictor) -> None:
    answer = {"model": {"name": "builtin", "sha256": builtin.digest}, "coverage": 0.9, "predictions": []}
    moody.mood = iter([lambda _: JSONResponse(answer)])
    assert "0 answers for 1 records" in refusal(lambda: client.predict([CHAIN]))


# Patience


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says(
    client: Client, moody: Moody, builtin: Predictor, status: int
) -> None:
    moody.mood = iter([refused(status, {"Retry-After": "1"}), passed])
    began = time.monotonic()
    assert client.predict([CHAIN]) == builtin.predict([CHAIN])
    assert 1 <= time.monotonic() - began < 5
    assert parts_of(moody) == [1, 1]


def test_a_date_to_come_back_is_understood(client: Client, moody: Moody) -> None:
    soon = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2), usegmt=True)
    moody.mood = iter([refused(429, {"Retry-After": soon})])
    began = time.monotonic()
    client.predict([CHAIN])
    assert 0.9 <= time.monotonic() - began < 6


@pytest.mark.parametrize("when", ["soon", "-1", "1.5", "99999999999999999999999999"])
def test_a_time_that_is_none_does_no_harm(client: Client, moody: Moody, when: str) -> None:
    moody.mood = iter([refused(429, {"Retry-After": when})])
    if when.startswith("999"):
        refusal(lambda: client.predict([CHAIN]), OverloadedError)
    else:
        assert client.predict([CHAIN])[0].status == "ok"


def test_a_service_that_stays_busy_is_given_up(client: Client, moody: Moody) -> None:
    moody.mood = itertools.repeat(refused(429, {"Retry-After": "0"}, "the queue is full"))
    with pytest.raises(OverloadedError, match="the queue is full") as caught:
        client.predict([CHAIN])
    assert caught.value.retry_after_s == 0
    assert parts_of(moody) == [1, 1, 1]


def test_nobody_waits_for_an_hour(client: Client, moody: Moody) -> None:
    moody.mood = itertools.repeat(refused(503, {"Retry-After": "3600"}))
    began = time.monotonic()
    with pytest.raises(OverloadedError) as caught:
        client.predict([CHAIN])
    assert time.monotonic() - began < 5
    assert caught.value.retry_after_s == 3600


def test_a_service_that_is_just_starting_is_waited_for(builtin: Predictor) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found: list[Any] = []

    def ask() -> None:
        with Client(f"http://127.0.0.1:{port}", retries=6) as client:
            found.extend(client.predict([CHAIN]))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.5)
    with running(create_app(ServingConfig(threads=1)), port=port):
        asking.join(40)
    assert found == builtin.predict([CHAIN])


def test_a_job_is_not_sent_twice_when_a_connection_breaks_off() -> None:
    requests = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    requests.append(connection.recv(65536).split(b" ", 2)[1])

        threading.Thread(target=hang_up, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.getsockname()[1]}", retries=2) as client:
            assert "broke off" in refusal(lambda: client.submit([]))
            assert requests == [b"/v1/jobs"]
            assert "broke off" in refusal(client.model)
            assert requests[1:] == [b"/v1/model"] * 3


# Trouble that does not pass


def test_an_address_where_nobody_listens_is_told() -> None:
    with Client("http://127.0.0.1:9", retries=1) as client:
        assert "http://127.0.0.1:9 cannot be reached" in refusal(client.model)
    began = time.monotonic()
    with Client("http://nowhere.invalid", retries=9) as client:
        assert "http://nowhere.invalid cannot be reached" in refusal(client.model)
    assert time.monotonic() - began < 10


def test_a_silent_service_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert "no answer in time" in refusal(lambda: Client(address, timeout_s=0.3).model())


@pytest.mark.parametrize(
    ("page", "word"),
    [
        (HTMLResponse("<h1>It works!</h1>"), "check the address"),
        (HTMLResponse("<h1>Not found</h1>", 404), "check the address"),
        (JSONResponse({"name": "other"}), "check the address"),
        (Response(b"[" * 100_000, media_type="application/json"), "check the address"),
        (Response(b"\xff\xfe", media_type="application/json"), "check the address"),
        (RedirectResponse("https://tm.example.org/"), "has moved to https://tm.example.org/"),
        (Response("oops\x1b[2J", 500), "HTTP status 500 Internal Server Error"),
        (error_response(500, "internal", "line 1\n\x1b[2Jline 2"), "line 1  [2Jline 2"),
    ],
)
def test_something_else_at_the_address_is_told(url: str, moody: Moody, page: Response, word: str) -> None:
    moody.mood = itertools.repeat(lambda _: page)
    with Client(url) as stranger:
        message = refusal(stranger.model, ConfigError if page.status_code == 307 else DataError)
    moody.mood = iter(())
    assert word in message
    assert url in message


@pytest.mark.parametrize(
    "address", ["", "tm.example.org", "ftp://tm.example.org", "http://", "http://a/?b=c", "http://a:b", "http://\x00"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    refusal(lambda: Client(address), ConfigError)


@pytest.mark.parametrize("key", ["", "two words", "line\nline", "schlüssel"])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str) -> None:
    message = refusal(lambda: Client("http://localhost", key=key), ConfigError)
    assert not key or key not in message


def test_a_password_in_the_address_is_not_repeated() -> None:
    with Client("http://me:secret@127.0.0.1:9/tm/", retries=0) as client:
        assert client.url == "http://127.0.0.1:9/tm"
        assert "secret" not in refusal(client.model)


def test_a_key_opens_a_service_that_asks_for_one(tmp_path: Path, builtin: Predictor) -> None:
    keys = tmp_path / "keys.json"
    key = create_key(keys, "laboratory")
    with running(create_app(ServingConfig(threads=1, keys=keys))) as url:
        with Client(url, key=key) as client:
            assert client.predict([CHAIN]) == builtin.predict([CHAIN])
        for wrong in (None, "es_wrong"):
            with Client(url, key=wrong) as client:
                assert "valid API key" in refusal(client.model, ConfigError)
        revoke_key(keys, "laboratory")
        with Client(url, key=key) as client:
            assert key not in refusal(client.model, ConfigError)


def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    app = create_app(ServingConfig(threads=1))
    secure = {"ssl_certfile": str(tmp_path / "cert.pem"), "ssl_keyfile": str(tmp_path / "key.pem")}
    with running(app, **secure) as address:
        url = address.replace("http:", "https:")
        with Client(url) as client:
            assert "cannot be trusted: self" in refusal(client.model)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        with Client(url) as client:
            assert client.model().name == "builtin"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    assert "network settings" in refusal(lambda: Client(url), ConfigError)


# Scans, jobs, feedback


def test_a_scan_has_every_substitution_and_a_shortlist(client: Client) -> None:
    chain = CHAIN[:60]
    found = client.scan(chain, id="enzyme", keep=[1, 2], exclude="CP", size=5)
    assert (found["id"], found["length"], len(found["rows"])) == ("enzyme", 60, 60 * 19)
    assert len(found["shortlist"]) == 5
    assert not {row["position"] for row in found["shortlist"]} & {1, 2}
    assert not {row["substitution"] for row in found["shortlist"]} & {"C", "P"}
    assert "10 " in refusal(lambda: client.scan("MK"), ConfigError)
    assert "200" in refusal(lambda: client.scan(chain, keep=[200]), ConfigError)


def test_a_job_gives_the_rows_of_the_predictor(
    client: Client, builtin: Predictor, proteins: list[Record], tmp_path: Path
) -> None:
    sent = [record for record in proteins if not record.problem and record.id and len(record.id) < 200][:300]
    sent = [record for record in sent if record.id.isprintable()]
    seen: list[Job] = []
    job = client.wait(client.submit(sent, coverage=0.8).id, progress=seen.append)
    assert (job.state, job.records, job.finished) == ("done", len(sent), len(sent))
    assert seen[-1] == job
    assert list(client.result(job.id)) == builtin.predict(sent, coverage=0.8)

    fasta = tmp_path / "own proteins.fasta"
    fasta.write_text("".join(f">p{k}\n{record.sequence}\n" for k, record in enumerate(sent)))
    job = client.wait(client.submit(fasta, growth_temperature=60.0).id)
    same = [Record(f"p{k}", record.sequence, 60.0) for k, record in enumerate(sent)]
    assert list(client.result(job.id)) == builtin.predict(same)


def test_what_cannot_be_a_job_is_told(client: Client, tmp_path: Path) -> None:
    assert "gone.fasta" in refusal(lambda: client.submit(tmp_path / "gone.fasta"))
    (tmp_path / "empty.fasta").touch()
    assert "empty" in refusal(lambda: client.submit(tmp_path / "empty.fasta"), ConfigError)
    assert "record a: line 1" in refusal(lambda: client.submit([Record("a", "", problem="line 1: cut")]))
    for ask in (client.job, client.cancel, client.wait, lambda job: list(client.result(job))):
        assert "job" in refusal(lambda ask=ask: ask("0" * 32))
        refusal(lambda ask=ask: ask("../model"))


def test_a_cancelled_job_has_no_result(client: Client) -> None:
    job = client.cancel(client.submit([Record("a", CHAIN * 300)] * 200).id)
    if job.state == "cancelled":  # else it was done before
        assert "cancelled" in refusal(lambda: client.wait(job.id))
        refusal(lambda: list(client.result(job.id)))


def test_measurements_come_back_with_what_became_of_them(client: Client) -> None:
    good = [{"id": f"m{k}", "sequence": CHAIN, "measured_tm_celsius": 50.0 + k % 20} for k in range(1100)]
    feedback = client.feedback([*good, {"id": "bad", "sequence": "MK", "measured_tm_celsius": 50}])
    assert feedback.accepted == 1100
    assert [row["id"] for row in feedback.rows] == [*(one["id"] for one in good), "bad"]
    assert feedback.rows[-1]["status"] != "ok"
    assert "measured_tm_celsius" in refusal(lambda: client.feedback([{"sequence": CHAIN}]), ConfigError)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_is_told(client: Client, value: Any) -> None:
    measured = [{"sequence": CHAIN, "measured_tm_celsius": value}]
    assert "JSON" in refusal(lambda: client.feedback(measured), ConfigError)
    assert "JSON" in refusal(lambda: client.submit([Record("a", CHAIN)], growth_temperature=value), ConfigError)


def test_embeddings_that_the_model_does_not_take_are_refused(client: Client, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "a.npy", np.ones((2, 8), dtype=np.float32))
    assert "give it sequences" in refusal(lambda: client.predict_embeddings(tmp_path / "a.npy"), ConfigError)
    assert "gone.npy" in refusal(lambda: client.predict_embeddings(tmp_path / "gone.npy"))
