"""What every page has in common: no network, no script but its own, the same bytes for the same numbers.

Also how a file that takes its place all at once is written.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from enzyme_stability.errors import DataError

_TEMPLATES = Path(__file__).parent / "templates"


def render(name: str, *, styles: Sequence[str] = (), **values: object) -> str:
    """Fill in ``templates/<name>.html.j2``, which gets its script, its style and the checksum of the script as well.

    Args:
        name: Name of the template and of its ``.js``.
        styles: Names of the ``.css`` files, the later ones over the earlier; that of the page where none are given.
        values: What the template speaks of. Text is escaped: names come from files of strangers.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    script = (_TEMPLATES / f"{name}.js").read_text(encoding="utf-8")
    style = "".join((_TEMPLATES / f"{part}.css").read_text(encoding="utf-8") for part in styles or [name])
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    return environment.get_template(f"{name}.html.j2").render(
        script=Markup(script),  # noqa: S704 - a file of this package
        style=Markup(style),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def write_whole(path: Path, content: bytes, what: str) -> None:
    """Write a file that gets its name only when it is complete.

    Args:
        path: File to write; through a link, which then still points there.
        content: All of it.
        what: What it is, for the message.

    Raises:
        DataError: The file cannot be written.
    """
    hidden = None
    try:
        final = path.resolve()
        if final.exists() and not (final.is_file() and os.access(final, os.W_OK)):
            raise DataError(f"cannot write {what} to {path}: it is no file that may be replaced; name another")
        hidden = final.with_name(f".{final.name[:40]}.{secrets.token_hex(4)}.tmp")
        hidden.write_bytes(content)
        hidden.replace(final)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links and a NUL in the name are no OSError
        raise DataError(f"cannot write {what} to {path}: {getattr(error, 'strerror', None) or error}") from None
    finally:
        if hidden is not None:
            with suppress(OSError):
                hidden.unlink(missing_ok=True)
