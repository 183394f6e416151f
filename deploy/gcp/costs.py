"""Prints what a month in Google Cloud may cost, from the assumptions of prices.yaml, as a table in Markdown.

python deploy/gcp/costs.py [PRICES]
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

_HOURS = 730.0  # of a month


def costs(prices: dict[str, float], usage: dict[str, float]) -> dict[str, tuple[str, float]]:
    """What is paid for: the amount in words, and dollars a month."""
    awake = usage["requests"] / usage["requests_per_awake_hour"]
    second = usage["instance_vcpus"] * prices["run_vcpu_second"] + usage["instance_gib"] * prices["run_gib_second"]
    sent = usage["requests"] * usage["answer_kb"] / 1e6
    built = usage["builds"] * usage["build_minutes"]
    sql = _HOURS * prices["sql_hour"] + usage["sql_gb"] * prices["sql_gb_month"]
    machine_disk = 100 * usage["machine_hours"] / _HOURS * prices["machine_disk_gb_month"]
    return {
        "Vertex AI, GPU": (
            f"{usage['vertex_gpu_hours']} h, {prices['vertex_gpu_hour']:.2f} an hour",
            usage["vertex_gpu_hours"] * prices["vertex_gpu_hour"],
        ),
        "Vertex AI, CPU": (
            f"{usage['vertex_cpu_hours']} h, {prices['vertex_cpu_hour']:.2f} an hour",
            usage["vertex_cpu_hours"] * prices["vertex_cpu_hour"],
        ),
        "Compute Engine, CPU": (
            f"{usage['machine_hours']} h, {prices['machine_hour']:.2f} an hour, and the disk",
            usage["machine_hours"] * prices["machine_hour"] + machine_disk,
        ),
        "Cloud Run": (
            f"{usage['requests']:,} requests in {awake:.0f} h awake, {3600 * second:.3f} an hour, "
            f"{1000 * 3600 * second / usage['requests_per_awake_hour']:.2f} a thousand requests",
            awake * 3600 * second + sent * prices["egress_gb"],
        ),
        "Cloud Run, never asleep": (f"{_HOURS:.0f} h, with minScale 1", _HOURS * 3600 * second),
        "Cloud SQL": (f"{_HOURS:.0f} h, {usage['sql_gb']} GB", sql),
        "Cloud Build": (f"{usage['builds']} builds of {usage['build_minutes']} min", built * prices["build_minute"]),
        "Buckets": (f"{usage['storage_gb']} GB", usage["storage_gb"] * prices["storage_gb_month"]),
        "Images": (f"{usage['image_gb']} GB", usage["image_gb"] * prices["image_gb_month"]),
    }


def table(assumptions: dict[str, dict[str, float]]) -> str:
    """The dearest first."""
    priced = costs(assumptions["prices"], assumptions["usage"])
    rows = sorted(priced.items(), key=lambda row: -row[1][1])
    lines = [f"| {what} | {amount} | {dollars:.2f} |" for what, (amount, dollars) in rows]
    return "\n".join(["| | a month | US dollars |", "|---|---|---|", *lines])


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("prices.yaml")
    print(table(yaml.safe_load(chosen.read_text(encoding="utf-8"))))
