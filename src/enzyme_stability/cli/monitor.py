"""The commands 'monitor ...': drift, feedback, performance, and what to do with the log."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enzyme_stability.cli.common import Model, say
from enzyme_stability.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from enzyme_stability.monitoring.database import Database
    from enzyme_stability.monitoring.drift import DriftReport
    from enzyme_stability.monitoring.performance import Figures, Performance

monitor = typer.Typer(no_args_is_help=True, help="Watch what a service predicts, and how it turns out.")

ALERT = 1
"""Exit code where there is drift, or predictions do not hold what they promise."""

TOO_FEW = 3
"""Exit code where there is too little to tell."""

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="URL of the database, as sqlite:///service.db; else $ENZYME_STABILITY_DATABASE or the default.",
    ),
]
Since = Annotated[str, typer.Option(help="Start: ago (7d, 12h, 30m), or an ISO date, in UTC where it does not say.")]
All = Annotated[str | None, typer.Option("--since", help="Start, as 90d or 2026-01-31; else all there is.")]
Until = Annotated[str | None, typer.Option(help="End, written likewise; else now.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Also write it as JSON.")]

_EVER = "0001-01-01"
_SHOWN = 20  # rows that could not be used are named up to here, and counted beyond
_AGO = re.compile(r"(\d+(?:\.\d+)?)([wdhm])")
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes"}


@monitor.command()
def drift(
    since: Since = "7d",
    until: Until = None,
    database: DatabaseUrl = None,
    model: Model = "builtin",
    baseline: Annotated[
        str | None,
        typer.Option(help="Compare with this time of the log, as 30d..7d or 2026-01-01..2026-01-08; else as trained."),
    ] = None,
    output: Output = None,
    html: Annotated[Path | None, typer.Option(help="Also write the page of Evidently (.html).")] = None,
) -> None:
    """Compare what is asked and answered with a reference; exit code 1 where it has moved, 3 for too few proteins."""
    now = dt.datetime.now(dt.UTC)
    start, end = _between(since, until, now)
    compared = None if baseline is None else _baseline(baseline, start, now)
    kept = _opened(database)
    from enzyme_stability.monitoring.drift import drift as measure_drift
    from enzyme_stability.monitoring.history import logged
    from enzyme_stability.predictor import Predictor
    from enzyme_stability.reference import Reference

    predictor = Predictor.load(model)
    if compared is None:
        reference = predictor.reference
    else:
        reference = Reference.of(logged(kept, *compared, model_hash=predictor.digest))
    rows = logged(kept, start, end, model_hash=predictor.digest)
    done = measure_drift(reference, rows)
    if output is not None:
        _write_json(output, done.to_dict(), "the drift report")
    if done.verdict == "too few":
        say(
            f"{done.proteins:,} distinct proteins of {predictor.name} were answered since {start:%Y-%m-%d %H:%M} UTC; "
            f"{done.minimum_proteins:,} are needed to tell"
        )
        raise typer.Exit(TOO_FEW)
    if html is not None:
        from enzyme_stability.monitoring.drift_report import write_evidently

        write_evidently(reference, rows, html)
    _show_drift(done)
    if done.drifted:
        say(f"{done.verdict}: {', '.join(done.drifted)}")
        raise typer.Exit(ALERT)
    say(done.verdict)


@monitor.command()
def feedback(
    measurements: Annotated[
        Path, typer.Argument(help="CSV, TSV or Parquet: sequence (or sequence_sha256) and measured_tm_celsius.")
    ],
    database: DatabaseUrl = None,
    model: Model = "builtin",
) -> None:
    """Store measured Tm beside what had been predicted; unseen proteins are predicted now."""
    kept = _database(database)
    from enzyme_stability.monitoring.feedback import record_feedback
    from enzyme_stability.monitoring.feedback_tables import read_measured
    from enzyme_stability.predictor import Predictor

    places, records = [], []
    for place, measured in read_measured(measurements):
        places.append(place)
        records.append(measured)
    predictor = Predictor.load(model)
    kept.migrate()
    outcomes = record_feedback(kept, predictor, records)
    odd = [(place, outcome) for place, outcome in zip(places, outcomes, strict=True) if outcome.status != "ok"]
    for place, outcome in odd[:_SHOWN]:
        say(f"{outcome.status}: {place} ({outcome.id}): {outcome.note}")
    if len(odd) > _SHOWN:
        say(f"and {len(odd) - _SHOWN:,} further rows")
    counts = Counter(outcome.status for outcome in outcomes)
    print(
        f"{len(outcomes):,} measurements: {counts['ok']:,} stored beside a prediction, {counts['warning']:,} with a "
        f"warning, {counts['error']:,} not usable"
    )


@monitor.command()
def performance(
    since: Since = "90d",
    until: Until = None,
    database: DatabaseUrl = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Only predictions of this predictor; else those of all.")
    ] = None,
    window: Annotated[str, typer.Option(help="Figures over time: 'week', or a number of proteins.")] = "week",
    output: Output = None,
) -> None:
    """Compare predictions with what was measured later; exit code 1 where they do not hold what they promise."""
    if window != "week" and not (window.isdecimal() and int(window)):
        raise ConfigError(f"--window is '{window}'; give 'week' or a number of proteins")
    start, end = _between(since, until)
    kept = _opened(database)
    from enzyme_stability.monitoring import performance as judged
    from enzyme_stability.predictor import Predictor

    done = judged.performance(
        kept,
        since=start,
        until=end,
        model_hash=None if model is None else Predictor.load(model).digest,
        window="week" if window == "week" else int(window),
    )
    if output is not None:
        _write_json(output, done.to_dict(), "figures")
    if done.overall is None:
        say(f"nothing measured since {start:%Y-%m-%d %H:%M} UTC can be compared with a prediction")
        raise typer.Exit(TOO_FEW)
    _show_figures(done)
    for alert in done.alerts:
        say(f"alert: {alert}")
    if done.alerts:
        raise typer.Exit(ALERT)


@monitor.command("retrain-set")
def retrain_set(
    output: Annotated[Path, typer.Argument(help="Table to write, .csv or .parquet.")],
    since: All = None,
    until: Until = None,
    database: DatabaseUrl = None,
) -> None:
    """Write what came back with a sequence as a table to train on."""
    start, end = _between(since or _EVER, until)
    kept = _opened(database)
    from enzyme_stability.monitoring.feedback_tables import export_retrain_set

    made = export_retrain_set(kept, output, since=start, until=end)
    say(f"{made.measurements:,} measurements gave {made.rows:,} rows in {output}")
    if made.left_out:
        say(f"{made.left_out:,} measurements came without a sequence and were left out")


@monitor.command()
def log(
    output: Annotated[
        Path, typer.Argument(help="Table to write: .csv, .tsv, .jsonl or .parquet; '-' is standard output.")
    ],
    since: All = None,
    until: Until = None,
    database: DatabaseUrl = None,
) -> None:
    """Write the logged predictions as a table."""
    start, end = _between(since or _EVER, until)
    kept = _opened(database)
    from enzyme_stability.monitoring.log_export import export_log

    say(f"{export_log(kept, output, since=start, until=end):,} predictions written to {output}")


@monitor.command()
def prune(
    keep_days: Annotated[
        float | None, typer.Option(min=0, help="Delete predictions that are older, in days; else of no age.")
    ] = None,
    keep_rows: Annotated[
        int | None, typer.Option(min=0, help="Keep as many of the newest predictions at most; else any number.")
    ] = None,
    database: DatabaseUrl = None,
) -> None:
    """Delete old logged predictions; measurements that came back stay."""
    from enzyme_stability.monitoring.retention import prune as delete

    if keep_days is None and keep_rows is None:
        raise ConfigError("say what to keep: --keep-days, --keep-rows or both")
    deleted = delete(_opened(database), keep_days=keep_days, keep_rows=keep_rows)
    say(f"{deleted:,} predictions deleted")


def _show_drift(done: DriftReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{done.proteins:,} proteins against {done.reference_proteins:,} of the reference")
    for column in ("quantity", "proteins", "mean", "reference", "PSI", "p", ""):
        table.add_column(column, justify="left" if column in {"quantity", ""} else "right")
    for one in sorted(done.quantities, key=lambda one: -(one.psi or 0)):
        table.add_row(
            one.name,
            f"{one.n:,}",
            "" if one.mean is None else f"{one.mean:.3g}",
            f"{one.reference_mean:.3g} ± {one.reference_sd:.2g}",
            "" if one.psi is None else f"{one.psi:.3f}",
            "" if one.p_value is None else f"{one.p_value:.1g}",
            "drifted" if one.drifted else "",
        )
    console = Console(width=120, markup=False, emoji=False)
    console.print(table)
    for name, share in (("out of domain", done.out_of_domain), ("without an answer", done.errors)):
        if share.value is not None:
            console.print(f"{name}: {share.value:.1%}, in the reference {share.expected:.1%}", highlight=False)


def _show_figures(done: Performance) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{done.measurements:,} measurements since {done.since:%Y-%m-%d %H:%M} UTC")
    for column in ("", "proteins", "MAE", "RMSE", "bias", "Spearman", "coverage", "asked for"):
        table.add_column(column, justify="left" if column in {"", "coverage"} else "right")
    if done.overall is not None:
        table.add_row("all", *_figures(done.overall))
    table.add_section()
    for name, figures in done.organisms.items():
        table.add_row(name, *_figures(figures))
    table.add_section()
    for period in done.periods:
        table.add_row(f"{period.start:%Y-%m-%d} to {period.end:%Y-%m-%d}", *_figures(period.figures))
    Console(width=120, markup=False, emoji=False).print(table)
    if done.unpredicted:
        say(f"{done.unpredicted:,} measurements have no prediction and count nowhere")


def _figures(of: Figures) -> list[str]:
    error = "" if of.bias_error is None else f" ± {of.bias_error:.1f}"
    return [
        f"{of.n:,}",
        f"{of.mae:.1f}",
        f"{of.rmse:.1f}",
        f"{of.bias:+.1f}{error}",
        "" if of.spearman is None else f"{of.spearman:.2f}",
        f"{of.coverage:.0%} ({of.coverage_low:.0%} to {of.coverage_high:.0%})",
        f"{of.asked_coverage:.0%}",
    ]


def _database(url: str | None) -> Database:
    if find_spec("sqlalchemy") is None:
        raise MissingDependencyError("Watching predictions", "monitor")
    from enzyme_stability.monitoring.database import Database, default_database_url

    return Database(url or default_database_url())


def _opened(url: str | None) -> Database:
    """The database, which has to be there, brought up to date."""
    database = _database(url)
    with database.session(read_only=True) as session:
        session.connection()  # refuses a file that is missing, which migrating would make
    database.migrate()
    return database


def _between(since: str, until: str | None, now: dt.datetime | None = None) -> tuple[dt.datetime, dt.datetime | None]:
    now = now or dt.datetime.now(dt.UTC)
    start = _moment(since, "--since", now)
    end = None if until is None else _moment(until, "--until", now)
    if start >= (end or now):
        raise ConfigError(f"--since {since} does not lie before {'now' if until is None else f'--until {until}'}")
    return start, end


def _baseline(text: str, before: dt.datetime, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    start, dots, end = text.partition("..")
    if not dots:
        raise ConfigError(f"--baseline is '{text}'; give start and end, as 30d..7d or 2026-01-01..2026-01-08")
    first, last = (_moment(part, "--baseline", now) for part in (start, end))
    if not first < last <= before:
        raise ConfigError(f"--baseline is '{text}'; its start must lie before its end, and that not after --since")
    return first, last


def _moment(text: str, option: str, now: dt.datetime) -> dt.datetime:
    """A point in time, from how long before ``now`` it was or from an ISO date."""
    try:
        if ago := _AGO.fullmatch(text.strip()):
            return now - dt.timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        moment = dt.datetime.fromisoformat(text.strip())
        return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    except OverflowError:
        raise ConfigError(f"{option} is {text}, which is before all time") from None
    except ValueError:
        raise ConfigError(f"{option} is '{text}'; give 7d, 12h, 30m or a date such as 2026-01-31") from None


def _write_json(path: Path, content: dict[str, Any], what: str) -> None:
    from enzyme_stability.pages import write_whole

    write_whole(path, (json.dumps(content, indent=1) + "\n").encode(), what)
