"""The queue before a model: common batches, turns, bounds, and requests that leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from enzyme_stability import Predictor, Record
from enzyme_stability.errors import OverloadedError
from enzyme_stability.prediction import Prediction
from enzyme_stability.serving.batching import Batch, Batcher

SEQUENCE = "MKVLAAGIVGLLLAQWERTYHG"


def named(*names: str, sequence: str = SEQUENCE) -> list[Record]:
    return [Record(name, sequence) for name in names]


class Model:
    """Answers with the name of each record, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], float]] = []
        self.going = threading.Event()
        self.going.set()
        self.started = threading.Event()

    def __call__(self, records: list[Record], coverage: float) -> list[Prediction]:
        self.started.set()
        self.going.wait(10)
        self.asked.append(([record.id for record in records], coverage))
        if any(record.id == "poison" for record in records):
            raise RuntimeError("cannot be predicted")
        return [Prediction(record.id, len(record.sequence), coverage, 0, 1, True, "ok", "") for record in records]


@asynccontextmanager
async def batcher(predict: Callable[..., Any], **settings: Any) -> AsyncIterator[Batcher]:
    usual = {"batch_residues": 100_000, "wait_s": 0.02, "queue_residues": 10**7, "queue_requests": 1000}
    made = Batcher(predict, **(usual | settings))
    made.start()
    try:
        yield made
    finally:
        await made.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


def test_requests_of_a_moment_are_predicted_together_and_each_gets_its_own_rows() -> None:
    async def work() -> None:
        model, told = Model(), list[Batch]()
        async with batcher(model, told=told.append) as one:
            asked = [one.predict(named(f"{k}a", f"{k}b"), 0.9) for k in range(20)]
            answers = await asyncio.gather(*asked)
        assert [[row.id for row in rows] for rows in answers] == [[f"{k}a", f"{k}b"] for k in range(20)]
        assert len(model.asked) == 1
        assert [(b.requests, b.records, b.residues) for b in told] == [(20, 40, 40 * len(SEQUENCE))]
        assert one.requests == one.residues == 0

    run(work)


def test_what_is_predicted_together_has_one_coverage() -> None:
    async def work() -> None:
        model = Model()
        async with batcher(model) as one:
            answers = await asyncio.gather(*(one.predict(named("a"), c) for c in (0.9, 0.8, 0.9, 0.8)))
        assert [rows[0].tm_celsius for rows in answers] == [0.9, 0.8, 0.9, 0.8]

    run(work)


def test_a_large_request_is_cut_and_others_need_not_wait_for_all_of_it() -> None:
    async def work() -> None:
        model = Model()
        model.going.clear()
        async with batcher(model, batch_residues=10 * len(SEQUENCE), wait_s=0) as one:
            large = asyncio.create_task(one.predict(named(*map(str, range(100))), 0.9))
            await asyncio.sleep(0.05)
            small = asyncio.create_task(one.predict(named("small"), 0.9))
            await asyncio.sleep(0.05)
            model.going.set()
            rows = await small
            before = sum(len(names) for names, _ in model.asked)
            assert [row.id for row in await large] == list(map(str, range(100)))
        assert [row.id for row in rows] == ["small"]
        assert before <= 30
        assert max(len(names) for names, _ in model.asked) <= 10

    run(work)


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def work() -> None:
        model = Model()
        model.going.clear()
        async with batcher(model, wait_s=0, queue_requests=2) as one:
            waiting = [asyncio.create_task(one.predict(named(str(k)), 0.9)) for k in range(1)]
            await until(model.started.is_set)  # the model has it
            waiting += [asyncio.create_task(one.predict(named(str(k)), 0.9)) for k in (1, 2)]
            await until(lambda: one.requests == 2)
            with pytest.raises(OverloadedError, match="busy") as refused:
                await one.predict(named("3"), 0.9)
            assert 1 <= refused.value.retry_after_s <= 60
            model.going.set()
            assert [rows[0].id for rows in await asyncio.gather(*waiting)] == ["0", "1", "2"]

    run(work)


def test_residues_that_wait_are_bounded_but_an_empty_queue_takes_any_request() -> None:
    async def work() -> None:
        model = Model()
        model.going.clear()
        async with batcher(model, wait_s=0, queue_residues=50) as one:
            first = asyncio.create_task(one.predict(named("0"), 0.9))
            await until(model.started.is_set)
            large = asyncio.create_task(one.predict(named("1", sequence=SEQUENCE * 10), 0.9))
            await until(lambda: one.requests == 1)
            with pytest.raises(OverloadedError):
                await one.predict(named("2"), 0.9)
            model.going.set()
            assert [rows[0].id for rows in await asyncio.gather(first, large)] == ["0", "1"]

    run(work)


def test_a_request_that_nobody_waits_for_leaves_the_queue() -> None:
    async def work() -> None:
        model = Model()
        model.going.clear()
        async with batcher(model, wait_s=0) as one:
            first = asyncio.create_task(one.predict(named("first"), 0.9))
            await until(model.started.is_set)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await one.predict(named("late"), 0.9)
            assert (one.requests, one.residues) == (0, 0)
            model.going.set()
            await first
            assert [row.id for row in await one.predict(named("next"), 0.9)] == ["next"]
        assert [names for names, _ in model.asked] == [["first"], ["next"]]

    run(work)


def test_one_request_that_fails_does_not_take_others_with_it() -> None:
    async def work() -> None:
        async with batcher(Model()) as one:
            answers = await asyncio.gather(
                one.predict(named("a"), 0.9),
                one.predict(named("poison"), 0.9),
                one.predict(named("b"), 0.9),
                return_exceptions=True,
            )
            assert isinstance(answers[1], RuntimeError)
            assert [answers[k][0].id for k in (0, 2)] == ["a", "b"]
            assert [row.id for row in await one.predict(named("c"), 0.9)] == ["c"]

    run(work)


def test_answers_are_those_of_the_predictor_alone(predictor: Predictor) -> None:
    sequences = [SEQUENCE * k for k in range(1, 30)] + ["MK1", ""]
    records = [Record(f"r{k}", sequence) for k, sequence in enumerate(sequences)]

    def predict(some: list[Record], coverage: float) -> list[Prediction]:
        return list(predictor.predict_records(some, coverage=coverage))

    async def work() -> None:
        async with batcher(predict, batch_residues=500) as one:
            together = await asyncio.gather(one.predict(records, 0.9), *(one.predict([r], 0.9) for r in records))
        alone = [predict([record], 0.9)[0] for record in records]
        assert together[0] == alone
        assert [rows[0] for rows in together[1:]] == alone

    run(work)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.builtin("tm50")
