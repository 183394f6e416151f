"""Settings of the HTTP service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from enzyme_stability.config.base import Strict


class ServingConfig(Strict):
    """What ``enzyme-stability serve`` is told.

    Attributes:
        model: Built-in predictor, folder or URL.
        delta_tm_model: Model of substitutions for scans: ``delta_tm``, the built-in one, or a folder or URL.
        threads: Threads of the model; 0 takes all cores.
        database: SQLAlchemy URL of predictions, feedback and jobs; None keeps none of them.
        log_sequences: Whether sequences are kept with the predictions.
        keep_days: Days after which a logged prediction is deleted.
        keep_rows: Logged predictions that are kept, at most.
        keys: File of hashed API keys; None lets everybody in.
        cors_origins: Origins whose pages may call the service.
        batch_residues: Residues predicted at once.
        batch_wait_ms: Milliseconds that a request waits for others to be predicted along with it.
        queue_residues: Residues that may wait; a request beyond that is told to come back (429).
        queue_requests: Requests that may wait, likewise.
        queue_scans: Scans that may wait, likewise.
        largest_body: Bytes of a request with JSON.
        largest_upload: Bytes of an uploaded file, as it is sent.
        largest_unpacked: Bytes of an uploaded file, once it is unpacked.
        most_records: Sequences in a request that is answered at once; more are a job.
        longest_sequence: Residues.
        longest_scan: Residues of a protein to scan.
        most_job_records: Sequences in a job.
        model_check_s: Seconds between two looks at which version the alias in ``model`` names; 0 keeps the first one.
        watch_minutes: Minutes between two looks at drift and at what was measured; 0 for none.
        body_timeout_s: Seconds for a request to arrive.
        request_timeout_s: Seconds for the answer.
        drain_timeout_s: Seconds that requests under way have to finish once the service is told to end.
    """

    model: str = "builtin"
    delta_tm_model: str = "delta_tm"
    threads: int = Field(default=0, ge=0)
    database: str | None = None
    log_sequences: bool = False
    keep_days: float = Field(default=90, gt=0)
    keep_rows: int = Field(default=5_000_000, gt=0)
    keys: Path | None = None
    cors_origins: tuple[str, ...] = ()
    batch_residues: int = Field(default=100_000, gt=0)
    batch_wait_ms: float = Field(default=2, ge=0)
    queue_residues: int = Field(default=5_000_000, gt=0)
    queue_requests: int = Field(default=1_000, gt=0)
    queue_scans: int = Field(default=4, gt=0)
    largest_body: int = Field(default=8 << 20, gt=0)
    largest_upload: int = Field(default=64 << 20, gt=0)
    largest_unpacked: int = Field(default=512 << 20, gt=0)
    most_records: int = Field(default=10_000, gt=0)
    longest_sequence: int = Field(default=40_000, gt=0)
    longest_scan: int = Field(default=3_000, gt=0)
    most_job_records: int = Field(default=1_000_000, gt=0)
    model_check_s: float = Field(default=30, ge=0)
    watch_minutes: float = Field(default=15, ge=0)
    body_timeout_s: float = Field(default=30, gt=0)
    request_timeout_s: float = Field(default=60, gt=0)
    drain_timeout_s: float = Field(default=25, gt=0)
