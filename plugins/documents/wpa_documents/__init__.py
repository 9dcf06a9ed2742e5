"""Document steps: text and metadata of PDF files, read with pypdf.

A PDF from outside is hostile until shown otherwise: a page can take minutes or all memory. Parsing runs
in a process of its own, which a time-out kills; only there is pypdf imported.
"""

from __future__ import annotations

import base64 as codec
import binascii
import hashlib
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from wpa.sdk import StepContext, StepFailed, hookimpl, step

if TYPE_CHECKING:
    from pypdf import PdfReader

__all__ = ["Metadata", "Text", "join", "metadata", "text", "wpa_steps"]

PDF = "application/pdf"
BYTES_MAX = 64 * 1024 * 1024
PAGES_MAX = 5_000


class Page(msgspec.Struct):
    page: int
    text: str
    characters: int


class Text(msgspec.Struct):
    """The text of a document, page by page."""

    pages: list[Page]
    characters: int
    words: int


class Metadata(msgspec.Struct):
    """What a document says of itself."""

    pages: int
    size_bytes: int
    sha256: str
    title: str = ""
    author: str = ""
    producer: str = ""
    created: str = ""


class Summary(msgspec.Struct):
    """The joined result of the pipeline."""

    nombre_documento: str
    uuid_proceso: str
    manual: bool
    pages: int
    words: int
    characters: int
    title: str
    author: str
    sha256: str
    beginning: str


def _open(base64: str, mime: str) -> tuple[PdfReader, bytes]:
    if mime != PDF:
        raise StepFailed(f"{mime!r} can't be read; send {PDF}", type="UnsupportedType", retryable=False)
    if len(base64) > BYTES_MAX * 4 // 3 + 4:
        raise StepFailed(f"more than {BYTES_MAX} bytes", type="TooLarge", retryable=False)
    try:
        data = codec.b64decode("".join(base64.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise StepFailed(f"not base64: {error}", type="NotBase64", retryable=False) from None
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        locked = reader.is_encrypted and not reader.decrypt("")
        pages = 0 if locked else len(reader.pages)
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise StepFailed(f"not a PDF: {error}", type="NotAPdf", retryable=False) from None
    if locked:
        raise StepFailed("the PDF is encrypted with a password", type="Encrypted", retryable=False)
    if pages > PAGES_MAX:
        raise StepFailed(f"{pages} pages; the most is {PAGES_MAX}", type="TooLarge", retryable=False)
    return reader, data


@step("documents.text", isolation="process")
def text(ctx: StepContext, base64: str, mime: str = PDF) -> Text:
    """Extract the text of a PDF, page by page, reporting each page."""
    from pypdf.errors import PyPdfError

    reader, _ = _open(base64, mime)
    count = len(reader.pages)
    pages = []
    for number, page in enumerate(reader.pages, 1):
        try:
            found = page.extract_text()
        except (PyPdfError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            message = f"page {number} can't be read: {error}"
            raise StepFailed(message, type="NotAPdf", retryable=False) from None
        pages.append(Page(number, found, len(found)))
        ctx.progress_sync(100 * number / count, f"page {number} of {count}", page=number, pages=count)
    return Text(pages, sum(p.characters for p in pages), sum(len(p.text.split()) for p in pages))


@step("documents.metadata", isolation="process")
def metadata(ctx: StepContext, base64: str, mime: str = PDF) -> Metadata:
    """Read a PDF's page count, size, digest, and what it says of itself."""
    reader, data = _open(base64, mime)
    info = reader.metadata
    created = info.creation_date if info else None
    ctx.progress_sync(100, "metadata read")
    return Metadata(
        pages=len(reader.pages),
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        title=str(info.title or "") if info else "",
        author=str(info.author or "") if info else "",
        producer=str(info.producer or "") if info else "",
        created=created.isoformat() if created else "",
    )


@step("documents.join")
async def join(
    ctx: StepContext,
    nombre_documento: str,
    uuid_proceso: str,
    text: Text,
    metadata: Metadata,
    manual: bool = False,
) -> Summary:
    """Join text and metadata into one summary."""
    if len(text.pages) != metadata.pages:
        message = f"{len(text.pages)} pages of text, {metadata.pages} in the metadata"
        raise StepFailed(message, type="Mismatch", retryable=False)
    return Summary(
        nombre_documento=nombre_documento,
        uuid_proceso=uuid_proceso,
        manual=manual,
        pages=metadata.pages,
        words=text.words,
        characters=text.characters,
        title=metadata.title,
        author=metadata.author,
        sha256=metadata.sha256,
        beginning=" ".join(text.pages[0].text.split())[:200] if text.pages else "",
    )


@hookimpl
def wpa_steps() -> Iterable[Callable[..., Any]]:
    return [text, metadata, join]
