"""The service takes over the model that an alias of the registry names, and drops no request over it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running_service import LYSOZYME, figure, served, until

from enzyme_stability import Predictor
from enzyme_stability.promotion import add
from enzyme_stability.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "registry")
    for model in ("builtin", "tm50"):
        add(made, model, "mine")
    made.point("mine", "production", 1)
    return made


def test_a_promoted_model_takes_over_under_load_without_a_lost_request(registry: Registry) -> None:
    digests = {number: registry.version("mine", number).sha256 for number in (1, 2)}
    sequences = [LYSOZYME[k:] for k in range(40)]
    expected = {
        digests[number]: [row.tm_celsius for row in Predictor.builtin(name, threads=1).predict(sequences)]
        for number, name in ((1, "builtin"), (2, "tm50"))
    }
    body = {"records": [{"sequence": sequence} for sequence in sequences]}
    seen: list[str] = []
    enough = threading.Event()

    with served("--database", "none", "--model", f"{registry.url}/mine@production", "--set", "model_check_s=0.2") as it:

        def ask() -> None:
            with it.client as client:
                while not enough.is_set():
                    answer = client.post("/v1/predict", json=body).raise_for_status().json()
                    digest = answer["model"]["sha256"]
                    assert [row["tm_celsius"] for row in answer["predictions"]] == expected[digest]
                    seen.append(digest)

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            until(lambda: len(seen) > 20)
            registry.point("mine", "production", 2)
            until(lambda: digests[2] in seen)
            registry.roll_back("mine", "production")
            until(lambda: seen[-1] == digests[1])
            enough.set()
            for one in asking:
                one.result()
        with it.client as client:
            assert client.get("/v1/model").json()["sha256"] == digests[1]


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_in_place(registry: Registry) -> None:
    (Path(registry.place("mine", 2)) / "head_plain.onnx").write_bytes(b"damaged")
    with (
        served("--database", "none", "--model", f"{registry.url}/mine@production", "--set", "model_check_s=0.2") as it,
        it.client as client,
    ):
        registry.point("mine", "production", 2)
        until(lambda: figure(client, "model_failures_total") or None)
        answer = client.post("/v1/predict", json={"records": [{"sequence": LYSOZYME}]}).json()
        assert answer["model"]["sha256"] == registry.version("mine", 1).sha256
        registry.roll_back("mine", "production")
