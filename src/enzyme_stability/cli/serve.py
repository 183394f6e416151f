"""The command 'serve'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from enzyme_stability.cli.common import Model, Threads, say


def serve(
    model: Model = "builtin",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, envvar="PORT", help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Processes; a language model is served by one.")] = 1,
    threads: Threads = 0,
    delta_tm_model: Annotated[
        str, typer.Option(help="Model of substitutions for scans: 'delta_tm', or folder or URL of another one.")
    ] = "delta_tm",
    database: Annotated[
        str | None,
        typer.Option(
            envvar="ENZYME_STABILITY_DATABASE",
            help="URL of the database, sqlite:///file or postgresql://...; 'none' keeps nothing.",
        ),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys (enzyme-stability keys create); without it everybody may ask.")
    ] = None,
    log_sequences: Annotated[
        bool, typer.Option("--log-sequences", help="Keep the sequences themselves in the prediction log.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may call the service, as https://example.org.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting of the service: --set most_records=500.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve predictions over HTTP, with a web page at /.

    Ends on Ctrl-C or SIGTERM, after what is under way.
    """
    from enzyme_stability.config.serving import ServingConfig
    from enzyme_stability.errors import ConfigError
    from enzyme_stability.monitoring.database import default_database_url
    from enzyme_stability.serving.server import serve as run

    given: dict[str, Any] = {
        "model": model,
        "delta_tm_model": delta_tm_model,
        "threads": threads,
        "database": None if database == "none" else database or default_database_url(),
        "keys": keys,
        "log_sequences": log_sequences,
        "cors_origins": tuple(cors_origin or ()),
    }
    for setting in settings or []:
        name, separator, value = setting.partition("=")
        if not separator:
            raise ConfigError(f"{setting!r} is no setting: give name=value, as in most_records=500")
        given[name] = value
    config = ServingConfig.parse(given, "serve")
    run(
        config,
        host=host,
        port=port,
        workers=workers,
        log_level=log_level,
        announce=lambda address: say(f"{address} (Ctrl-C ends it)"),
    )
