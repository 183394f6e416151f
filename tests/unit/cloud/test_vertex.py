"""Jobs of Vertex AI: refused here where they cannot work, sent over gRPC to a server of Google's own protocol."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud.aiplatform_v1 import (
    AcceleratorType,
    CreateCustomJobRequest,
    CreateHyperparameterTuningJobRequest,
    CustomJob,
    HyperparameterTuningJob,
    JobServiceClient,
)
from google.cloud.aiplatform_v1.services.job_service.transports import JobServiceGrpcTransport

from enzyme_stability import cli
from enzyme_stability.cloud import vertex
from enzyme_stability.cloud.vertex import Machine, SubmissionError, from_yaml, submit, to_yaml, training_job, tuning_job
from enzyme_stability.configuration import compose
from enzyme_stability.errors import ConfigError

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
SETTINGS = ["data.path=gs://bucket/clean.csv", "head=mlp", "run_name=net"]
PLACE = {"image": "europe-west1-docker.pkg.dev/my-project/enzyme-stability/trainer:1", "staging": "gs://bucket/runs"}


def machine(**changes: Any) -> Machine:
    return Machine.parse(PLACE | changes, "the test")


class JobService:
    """Answers as Vertex AI does, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.refusal: tuple[grpc.StatusCode, str] | None = None

    def answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.refusal is not None:
            context.abort(*self.refusal)
        self.asked.append(request)
        if isinstance(request, CreateCustomJobRequest):
            return CustomJob(request.custom_job, name=f"{request.parent}/customJobs/17")
        job = request.hyperparameter_tuning_job
        return HyperparameterTuningJob(job, name=f"{request.parent}/hyperparameterTuningJobs/18")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[JobService, JobServiceClient]]:
    service = JobService()

    def method(request: Any, response: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(service.answer, request.deserialize, response.serialize)

    handlers = {
        "CreateCustomJob": method(CreateCustomJobRequest, CustomJob),
        "CreateHyperparameterTuningJob": method(CreateHyperparameterTuningJobRequest, HyperparameterTuningJob),
    }
    server = grpc.server(ThreadPoolExecutor(1))
    name = "google.cloud.aiplatform.v1.JobService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    yield service, JobServiceClient(transport=JobServiceGrpcTransport(channel=channel))
    channel.close()
    server.stop(None)


@pytest.fixture
def service(served: tuple[JobService, JobServiceClient]) -> JobService:
    served[0].asked.clear()
    served[0].refusal = None
    return served[0]


@pytest.fixture
def client(served: tuple[JobService, JobServiceClient], service: JobService) -> JobServiceClient:  # noqa: ARG001
    return served[1]


Command = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["enzyme-stability", "submit", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    return run


def test_a_job_trains_with_settings_that_compose_and_keeps_its_run_in_the_bucket() -> None:
    job = training_job(SETTINGS, machine(timeout_s=3600), NOW)
    (pool,) = job.job_spec.worker_pool_specs
    config = compose(list(pool.container_spec.args))
    assert (config.run_name, config.data.path) == ("net", "gs://bucket/clean.csv")
    assert config.mirror == "gs://bucket/runs/net-20260102-030405"
    assert pool.container_spec.command[-1] == "enzyme_stability.cloud.trial"
    assert job.job_spec.scheduling.timeout == dt.timedelta(hours=1)
    assert job.job_spec.scheduling.strategy == 0


def test_a_mirror_of_ones_own_is_kept() -> None:
    job = training_job([*SETTINGS, "mirror=gs://mine/run"], machine(), NOW)
    arguments = list(job.job_spec.worker_pool_specs[0].container_spec.args)
    assert [a for a in arguments if a.startswith("mirror")] == ["mirror=gs://mine/run"]


def test_a_gpu_that_may_be_taken_away() -> None:
    settings = {"machine_type": "g2-standard-24", "accelerator": "NVIDIA_L4", "accelerators": 2, "spot": True}
    job = training_job([*SETTINGS, "trainer.devices=2"], machine(**settings), NOW)
    spec = job.job_spec.worker_pool_specs[0].machine_spec
    assert (spec.accelerator_type, spec.accelerator_count) == (AcceleratorType.NVIDIA_L4, 2)
    assert job.job_spec.scheduling.strategy.name == "SPOT"


def test_every_accelerator_is_one_that_vertex_knows() -> None:
    assert set(vertex._MACHINES) <= set(AcceleratorType.__members__)


def test_a_search_tries_the_space_of_the_head_but_what_is_given() -> None:
    job = tuning_job([*SETTINGS, "head.dropout=0.1"], machine(), NOW, trials=3, parallel=5, space=None)
    parameters = {p.parameter_id: p for p in job.study_spec.parameters}
    rate = parameters["head.learning_rate"]
    assert (rate.double_value_spec.min_value, rate.double_value_spec.max_value) == (1e-5, 1e-2)
    assert rate.scale_type.name == "UNIT_LOG_SCALE"
    assert "[512,256]" in parameters["head.hidden"].categorical_value_spec.values
    assert "head.dropout" not in parameters
    assert (job.max_trial_count, job.parallel_trial_count) == (3, 3)
    assert [(m.metric_id, m.goal.name) for m in job.study_spec.metrics] == [("rmse", "MINIMIZE")]


def test_every_choice_of_a_search_is_a_setting(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("trainer.patience: {kind: int, low: 5, high: 30}\nhead.hidden: {kind: choice, values: ['[8]']}\n")
    job = tuning_job(SETTINGS, machine(), NOW, trials=1, parallel=1, space=str(space))
    patience, hidden = job.study_spec.parameters
    assert (patience.integer_value_spec.min_value, patience.integer_value_spec.max_value) == (5, 30)
    (widths,) = hidden.categorical_value_spec.values
    assert compose([*SETTINGS, f"head.hidden={widths}"]).head.hidden == (8,)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["data.path=clean.csv"], "data.path is clean.csv"),
        (["data.path=file:///clean.csv"], "which the cloud cannot read"),
        (["mirror=outputs/copy"], "mirror is outputs/copy"),
        (["head.learning_rat=1"], "did you mean head.learning_rate"),
        (["trainer.devices=2"], "trainer.devices is 2"),
        (["trainer.nodes=2"], "trainer.nodes"),
    ],
)
def test_a_job_that_could_not_work_is_refused(changes: list[str], named: str) -> None:
    given = {name: f"{name}={value}" for name, value in (o.split("=", 1) for o in [*SETTINGS, *changes])}
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        training_job(list(given.values()), machine(), NOW)


def test_settings_in_a_file_of_this_machine_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [train]\n")
    with pytest.raises(ConfigError, match="lies on this machine only"):
        training_job([str(path), *SETTINGS], machine(), NOW)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"accelerator": "NVIDIA_L4"}, "needs a machine of type g2-"),
        ({"accelerator": "NVIDIA_L5"}, "there is no accelerator NVIDIA_L5"),
        ({"staging": "/tmp/runs"}, "staging"),  # noqa: S108
        ({"image": "Trainer latest"}, "image"),
        ({"timeout_s": 8 * 86400}, "timeout_s"),
    ],
)
def test_a_machine_that_there_is_not_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        machine(**changes)


@pytest.mark.parametrize("trials", [0, 4])
def test_what_is_printed_is_what_is_sent(
    trials: int, service: JobService, client: JobServiceClient, tmp_path: Path, monkeypatch: Any, command: Command
) -> None:
    monkeypatch.setattr(vertex, "job_client", lambda region: {"europe-west4": client}[region])
    where = ["--project", "my-project", "--region", "europe-west4"]
    options = ["--staging", "gs://bucket/runs/", "--spot", "--timeout", "90m", "--trials", str(trials)]
    code, printed, _ = command("vertex", *SETTINGS, "mirror=gs://b/r", *where, *options, "--dry-run")
    assert code == 0
    assert not service.asked
    path = tmp_path / "job.yaml"
    path.write_text(printed)

    assert command("vertex", *SETTINGS, "mirror=gs://b/r", *where, *options)[0] == 0
    code, address, _ = command("file", str(path), *where)
    number = 18 if trials else 17
    page = f"https://console.cloud.google.com/vertex-ai/locations/europe-west4/training/{number}?project=my-project\n"
    assert (code, address) == (0, page)
    direct, from_file = service.asked
    assert direct.parent == from_file.parent == "projects/my-project/locations/europe-west4"
    jobs = [r.hyperparameter_tuning_job if trials else r.custom_job for r in (direct, from_file)]
    for job in jobs:
        job.display_name = ""  # which holds the time
    assert jobs[0] == jobs[1]
    spec = jobs[0].trial_job_spec if trials else jobs[0].job_spec
    assert spec.scheduling.timeout == dt.timedelta(minutes=90)
    image = spec.worker_pool_specs[0].container_spec.image_uri
    assert image == "europe-west4-docker.pkg.dev/my-project/enzyme-stability/enzyme-stability-trainer:latest"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "gcloud auth application-default login"),
        (grpc.StatusCode.PERMISSION_DENIED, r"project my-project refuses you \(so it is\).*roles/aiplatform.user"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, r"quota of project my-project in europe-west1 .*\(so it is\)"),
        (grpc.StatusCode.INVALID_ARGUMENT, "refuses the job: so it is"),
        (grpc.StatusCode.UNAVAILABLE, r"cannot be reached \(so it is\)"),
    ],
)
def test_a_refusal_is_one_sentence(
    status: grpc.StatusCode, sentence: str, service: JobService, client: JobServiceClient
) -> None:
    service.refusal = (status, "so it is")
    with pytest.raises(SubmissionError, match=sentence):
        submit(training_job(SETTINGS, machine(), NOW), "my-project", "europe-west1", client)


def test_without_credentials_it_is_said_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    code, out, err = command("vertex", *SETTINGS, "--project", "my-project", "--staging", "gs://bucket/runs")
    assert (code, out) == (2, "")
    assert err == ("error: Google does not know who asks: sign in with 'gcloud auth application-default login'\n")


def test_a_job_goes_to_the_service_of_its_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials.json"
    person = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    path.write_text(json.dumps(person))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert vertex.job_client("us-east1").api_endpoint.startswith("us-east1-aiplatform.googleapis.com")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("displayName: x\njobSpecs: {}\n", "neither jobSpec"),
        ("displayName: x\njobSpec: {workerPoolSpec: []}\n", "workerPoolSpec"),
        ("jobSpec: [", "is no job of Vertex AI"),
        ("- jobSpec", "neither jobSpec"),
    ],
)
def test_a_misspelt_job_is_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        from_yaml(text, "job.yaml")


def test_a_job_survives_being_written() -> None:
    job = tuning_job(SETTINGS, machine(spot=True), NOW, trials=3, parallel=1, space=None)
    assert from_yaml(to_yaml(job), "job.yaml") == job


def test_options_that_mean_nothing_are_refused(command: Command) -> None:
    place = ["--project", "my-project", "--staging", "gs://bucket/runs", "--dry-run"]
    assert "give 90m, 4h or 2d" in command("vertex", *SETTINGS, *place, "--timeout", "4 hours")[2]
    assert "give --trials too" in command("vertex", *SETTINGS, *place, "--space", "mlp")[2]
    assert "cannot be read" in command("file", "nowhere.yaml", "--project", "my-project")[2]
