"""From a file that a stranger sent to records or embeddings: unpacked within bounds, explained without a path."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Protocol

from enzyme_stability.data.readers import read_records
from enzyme_stability.embeddings.files import read_embeddings
from enzyme_stability.embeddings.table import EmbeddingTable
from enzyme_stability.errors import DataError, OverloadedError, TooLargeError
from enzyme_stability.sequence import Record
from enzyme_stability.serving.embedding_uploads import check_embeddings

_CHUNK_BYTES = 1 << 20
_BLANKS = b"\xef\xbb\xbf \t\r\n"  # with the byte-order mark
_GZIP_MAGIC = b"\x1f\x8b"
_NO_TEXT = {
    b"PAR1": "Parquet, which is not taken here: save it as CSV",
    b"PK\x03\x04": "a zip archive or a spreadsheet: send what is in it, as FASTA or as CSV in UTF-8",
    b"\x89HDF": "HDF5, which holds no sequences: send FASTA, CSV or TSV",
    _GZIP_MAGIC: "compressed twice: unpack it once",
}
_LONGEST_RECORD = 10_000_000  # bytes, as in a cell of a table
_MOST_BROKEN = 5
_OPTIONS = {
    "--growth-temperature-column": "growth_temperature_column",
    "--id-column": "id_column",
    "--column": "column",
    "the file: the file": "the file",
}
_ROOM_AGAIN_S = 30.0


class Uploaded(Protocol):
    """A file as Starlette spools it."""

    @property
    def file(self) -> BinaryIO:
        """What was sent."""


def records_of(
    upload: Uploaded | BinaryIO | Path,
    *,
    largest_unpacked: int,
    most_records: int,
    longest_sequence: int | None = None,
    column: str | None = None,
    id_column: str | None = None,
    growth_temperature_column: str | None = None,
) -> list[Record]:
    """The records of an uploaded FASTA, CSV or TSV file, plain or gzip-compressed; see ``stream_records``."""
    return list(
        stream_records(
            upload,
            largest_unpacked=largest_unpacked,
            most_records=most_records,
            longest_sequence=longest_sequence,
            column=column,
            id_column=id_column,
            growth_temperature_column=growth_temperature_column,
        )
    )


def stream_records(
    upload: Uploaded | BinaryIO | Path,
    *,
    largest_unpacked: int,
    most_records: int,
    longest_sequence: int | None = None,
    column: str | None = None,
    id_column: str | None = None,
    growth_temperature_column: str | None = None,
) -> Iterator[Record]:
    """Yield the records of an uploaded file, holding a few of them in memory at a time.

    Args:
        upload: The file; its own name is not looked at.
        largest_unpacked: Bytes that it may have once it is unpacked, on disk.
        most_records: Records that it may have.
        longest_sequence: Residues; a record with more has a ``problem`` and costs itself only.
        column: Sequence column of a table; found where not given.
        id_column: Id column of a table.
        growth_temperature_column: Column of growth temperatures in degC.

    Raises:
        DataError: The file is empty, damaged, no text in UTF-8 or not of a known format, or its columns are not clear.
        TooLargeError: It has too many bytes or records.
        OverloadedError: The disk is full.
    """
    with _copied(_text(_unpacked(upload, largest_unpacked))) as path, _explained(path):
        broken = 0
        records = read_records(
            path, column=column, id_column=id_column, growth_temperature_column=growth_temperature_column
        )
        for count, record in enumerate(records, 1):
            if count > most_records:
                raise TooLargeError(f"the file has more than the {most_records:,} records taken here: split it")
            broken += _is_broken(record)
            if broken > _MOST_BROKEN:
                raise DataError("the file has several rows with a quote that is not closed: write the table again")
            length = len(record.sequence)
            if longest_sequence is not None and length > longest_sequence:
                problem = f"{length:,} residues are more than the {longest_sequence:,} taken here"
                record = Record(record.id, "", problem=problem)  # noqa: PLW2901
            yield record


def embeddings_of(
    upload: Uploaded | BinaryIO | Path, *, largest_unpacked: int, most_records: int | None = None
) -> EmbeddingTable:
    """The embeddings in an uploaded PyTorch, NumPy, safetensors or HDF5 file.

    Args:
        upload: The file; its own name is not looked at.
        largest_unpacked: Bytes that its numbers may take in memory.
        most_records: Proteins that it may have.

    Raises:
        DataError: The file is empty, damaged, of another format, or an embedding in it makes no sense.
        TooLargeError: It holds too many numbers or proteins.
        MissingDependencyError: The package for the format is not installed.
        OverloadedError: The disk is full.
    """
    with _copied(_limited(_chunks(upload), largest_unpacked)) as path, _explained(path):
        check_embeddings(path, largest_unpacked)
        table = read_embeddings(path)
        if most_records is not None and len(table.ids) > most_records:
            raise TooLargeError(f"the file has more than the {most_records:,} proteins taken here: split it")
        return table


def _chunks(upload: Uploaded | BinaryIO | Path) -> Iterator[bytes]:
    with _opened(upload) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


@contextmanager
def _opened(upload: Uploaded | BinaryIO | Path) -> Iterator[BinaryIO]:
    if isinstance(upload, Path):
        with upload.open("rb") as file:
            yield file
        return
    spooled: Any = upload
    stream: BinaryIO = getattr(spooled, "file", spooled)
    stream.seek(0)
    yield stream


def _unpacked(upload: Uploaded | BinaryIO | Path, largest: int) -> Iterator[bytes]:
    with _opened(upload) as stream:
        compressed = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        stream.seek(0)
        source = gzip.GzipFile(fileobj=stream, mode="rb") if compressed else stream
        try:
            yield from _limited(iter(lambda: source.read(_CHUNK_BYTES), b""), largest)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            state = "truncated" if isinstance(error, EOFError) else "damaged"
            raise DataError(f"the gzip data of the file is {state}: compress it again") from error


def _limited(chunks: Iterable[bytes], largest: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > largest:
            raise TooLargeError(f"the file has more than the {largest:,} bytes taken here, once unpacked: split it")
        yield chunk
    if not size:
        raise DataError("the file is empty: choose another one")


def _text(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass on what is text in UTF-8 with records of a bearable length.

    A reader has a whole record in memory at once, so a single one that fills the file is stopped here.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, record, ends = 0, 0, b""
    for chunk in chunks:
        start = chunk.lstrip(_BLANKS)
        if not ends and start:
            for magic, kind in _NO_TEXT.items():
                if chunk.startswith(magic):
                    raise DataError(f"the file is {kind}")
            ends = b"\n>" if start[:1] in b">;" or b"\n>" in _unix(chunk) else b"\n"
        _decode(decoder, chunk, lines)
        lines += chunk.count(b"\n")
        first, last = _unix(chunk).find(ends), _unix(chunk).rfind(ends)
        longest = record + (len(chunk) if first < 0 else first)
        if longest > _LONGEST_RECORD:
            raise TooLargeError(f"a record of the file has more than {_LONGEST_RECORD:,} bytes: no protein is so long")
        record = longest if first < 0 else len(chunk) - last
        yield chunk
    _decode(decoder, b"", lines, final=True)


def _unix(chunk: bytes) -> bytes:
    return chunk.replace(b"\r", b"\n")


def _decode(decoder: codecs.IncrementalDecoder, chunk: bytes, lines: int, *, final: bool = False) -> None:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        line = lines + error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        message = f"the file is no text in UTF-8: line {line} has the byte 0x{byte:02x}; save it as UTF-8"
        raise DataError(message) from None


def _is_broken(record: Record) -> bool:
    """Whether the rest of a table was read in vain for this row, and is read again for the next one."""
    return "a quote is not closed" in record.problem or "field limit" in record.problem


@contextmanager
def _copied(chunks: Iterable[bytes]) -> Iterator[Path]:
    """A file of this process with the bytes, gone at the end."""
    with ExitStack() as stack:
        try:
            path = Path(stack.enter_context(TemporaryDirectory(prefix="enzyme-stability-")), "upload")
            with path.open("wb") as file:
                file.writelines(chunks)
        except OSError as error:
            message = f"the service has no room for the file now ({error.strerror}): send it again later"
            raise OverloadedError(message, _ROOM_AGAIN_S) from error
        yield path


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Let messages speak of the file and the parameters of a request, where readers name a path and options."""
    try:
        yield
    except DataError as error:
        message = str(error).replace(str(path), "the file")
        for option, parameter in _OPTIONS.items():
            message = message.replace(option, parameter)
        raise DataError(message) from None
