"""Optuna studies: where their trials are kept, which search they belong to, and how each trial draws its values."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.errors import ArtifactError, ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

HEARTBEAT_S = 60
"""Seconds between the signs of life that a running trial leaves in a database."""

SILENCE_S = 300
"""Seconds without one after which a trial counts as killed."""

_JOURNAL, _JOURNAL_BEGINS = ".journal", b'{"op_code":'
_URL = re.compile(r"[a-z][a-z0-9+]+:", re.IGNORECASE)  # at least two characters: C: is a drive
_LOCKED_S = 60  # how long another process may be writing
_IDENTITY = "search"


@contextmanager
def open_study(where: str, name: str, seed: int, identity: Mapping[str, Any]) -> Iterator[Study]:
    """A study that minimises, new or continued; Optuna keeps silent while it is open.

    Args:
        where: An SQLite file, a journal file (``.journal``) or the URL of a database.
        name: Of the study.
        seed: A trial draws from this and its number: however the trials are shared between calls and processes, no
            two draw alike.
        identity: What tells this search from others; a study of another one is refused.

    Raises:
        ArtifactError: The storage cannot be read or written.
        ConfigError: The study is one of other settings, or the address cannot be used.
        MissingDependencyError: Optuna is not installed.
    """
    try:
        import optuna
        import sqlalchemy
    except ImportError:
        raise MissingDependencyError("Tuning", "tune") from None
    with _quiet():
        try:
            study = optuna.create_study(
                storage=_storage(where),
                study_name=name,
                sampler=_sampler(seed),
                pruner=optuna.pruners.MedianPruner(),
                load_if_exists=True,
            )
            _refuse_other(study, identity, where)
        except ImportError as error:
            raise ConfigError(f"{shown(where)} needs the driver of its database: {error.__cause__ or error}") from None
        except sqlalchemy.exc.ArgumentError as error:
            raise ConfigError(f"{shown(where)} is no address of a database: {error}") from None
        except (RuntimeError, KeyError, AssertionError, ValueError) as error:  # of a file that is not Optuna's own
            raise ArtifactError(f"{shown(where)} holds no study that can be read: {error}") from None
        except _storage_errors() as error:
            raise ArtifactError(f"the study in {shown(where)} cannot be opened: {_cause(error)}") from None
        try:
            yield study
        except _storage_errors() as error:
            raise ArtifactError(f"the study in {shown(where)} cannot be used any longer: {_cause(error)}") from None


def shown(where: str) -> str:
    """The place of a study without a password."""
    if not _URL.match(where):
        return where
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(where).render_as_string(hide_password=True)
    except ArgumentError:
        return where.partition(":")[0] + ":..."


def _storage(where: str) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import DBAPIError

    options: dict[str, Any] = {}
    if not _URL.match(where):
        path = Path(where).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == _JOURNAL:
            if path.exists() and not _begins_a_journal(path):
                raise ValueError("it is no journal")  # Optuna would add to it all the same
            return JournalStorage(JournalFileBackend(str(path)))
        where = f"sqlite:///{path}"
    if where.startswith("sqlite"):
        options = {"connect_args": {"timeout": _LOCKED_S}}
    for pause_s in (0.1, 0.3, 1.0, 3.0, None):
        try:
            return RDBStorage(where, options, heartbeat_interval=HEARTBEAT_S, grace_period=SILENCE_S)
        except DBAPIError as error:
            if pause_s is None or not any(word in str(error) for word in _MADE_MEANWHILE):
                raise
            time.sleep(pause_s)
    raise AssertionError  # the last round returns or raises


def _begins_a_journal(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_JOURNAL_BEGINS)) in {b"", _JOURNAL_BEGINS}


_MADE_MEANWHILE = ("already exists", "UNIQUE constraint", "duplicate key", "Duplicate entry")
"""What databases say where another process made the same table at the same moment."""


def _sampler(seed: int) -> BaseSampler:
    from optuna.samplers import BaseSampler, TPESampler

    class SeededByTrial(BaseSampler):  # type: ignore[misc]
        """TPE that begins anew with each trial, so that an interrupted search repeats one that was not."""

        _tpe: TPESampler

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            (own,) = np.random.SeedSequence([seed, trial.number]).generate_state(1)
            self._tpe = TPESampler(seed=int(own), multivariate=True, constant_liar=True)
            self._tpe.before_trial(study, trial)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
            space: dict[str, BaseDistribution] = self._tpe.infer_relative_search_space(study, trial)
            return space

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            drawn: dict[str, Any] = self._tpe.sample_relative(study, trial, search_space)
            return drawn

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> Any:
            return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    return SeededByTrial()


def _refuse_other(study: Study, identity: Mapping[str, Any], where: str) -> None:
    begun = bool(study.get_trials(deepcopy=False))  # asked first: who begins a trial has said before of which search
    kept = study.user_attrs.get(_IDENTITY)
    if kept is None and not begun:
        study.set_user_attr(_IDENTITY, dict(identity))
        return
    kept = kept or {}
    if differing := sorted(key for key in {*kept, *identity} if kept.get(key) != identity.get(key)):
        some = ", ".join(differing[:4]) + (" and others" if len(differing) > 4 else "")
        raise ConfigError(
            f"study '{study.study_name}' in {shown(where)} is one of other settings ({some} differ), and its trials "
            "cannot be compared with these: give the search another name"
        )


def _storage_errors() -> tuple[type[Exception], ...]:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    return StorageInternalError, SQLAlchemyError, OSError


def _cause(error: BaseException) -> str:
    """What the database itself said, without the statement that it said it of."""
    origin = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return str(origin).strip().partition("\n")[0]


@contextmanager
def _quiet() -> Iterator[None]:
    from optuna.exceptions import ExperimentalWarning
    from optuna.logging import get_verbosity, set_verbosity

    level = get_verbosity()
    set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        set_verbosity(level)
