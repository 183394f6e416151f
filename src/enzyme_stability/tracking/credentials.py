"""Keys of tracking servers: where they are looked up, and that no message shows them."""

from __future__ import annotations

import netrc
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

_SECRETS = ("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
_PASSWORD_IN_ADDRESS = re.compile(r"//[^/\s@]+@")


def wandb_key() -> str | None:
    """The Weights & Biases key in ``WANDB_API_KEY`` or in the netrc file, None where there is none."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        entry = netrc.netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser()).authenticators(host)
    except (OSError, RuntimeError, UnicodeDecodeError, netrc.NetrcParseError):
        return None
    return entry[2] if entry and entry[2] else None


def redact(text: str) -> str:
    """The text with every key and password that is known here blotted out."""
    for secret in (*map(os.environ.get, _SECRETS), wandb_key()):
        if secret:
            text = text.replace(secret, "***")
    return _PASSWORD_IN_ADDRESS.sub("//***@", text)
