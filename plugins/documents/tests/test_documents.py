from __future__ import annotations

import base64
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from wpa_documents import join, metadata, text

from wpa.sdk import StepFailed, fake_context


def _sample() -> ModuleType:
    path = Path(__file__).parents[3] / "examples" / "demo" / "sample_pdf.py"
    spec = importlib.util.spec_from_file_location("sample_pdf", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAMPLE = _sample()
PDF = base64.b64encode(SAMPLE.sample_pdf()).decode()


def test_the_text_of_every_page_is_found_and_reported() -> None:
    ctx = fake_context()
    found = text(ctx, PDF, "application/pdf")
    assert [page.page for page in found.pages] == [1, 2, 3, 4]
    assert "forty cups" in found.pages[0].text
    assert "500.00 EUR" in found.pages[2].text
    assert [(share, message) for share, message, _ in ctx.reported] == [
        (25.0, "page 1 of 4"),
        (50.0, "page 2 of 4"),
        (75.0, "page 3 of 4"),
        (100.0, "page 4 of 4"),
    ]


def test_the_metadata_is_what_the_file_says() -> None:
    found = metadata(fake_context(), PDF, "application/pdf")
    assert (found.pages, found.title, found.author) == (4, "Contract 4711", "Ada")
    assert found.created.startswith("2026-11-20T10:00:00")
    assert found.size_bytes == len(base64.b64decode(PDF))


async def test_the_join_counts_words_over_all_pages() -> None:
    ctx = fake_context()
    summary = await join(ctx, "contract.pdf", "u-1", text(ctx, PDF), metadata(ctx, PDF), manual=True)
    assert (summary.nombre_documento, summary.uuid_proceso, summary.manual) == ("contract.pdf", "u-1", True)
    assert summary.words == sum(len(" ".join(page).split()) for page in SAMPLE.PAGES)


@pytest.mark.parametrize(
    ("data", "mime", "kind"),
    [
        ("not base64!", "application/pdf", "NotBase64"),
        (base64.b64encode(b"plain text").decode(), "application/pdf", "NotAPdf"),
        (base64.b64encode(b"").decode(), "application/pdf", "NotAPdf"),
        (PDF[: len(PDF) // 8 * 4], "application/pdf", "NotAPdf"),
        (PDF, "image/png", "UnsupportedType"),
    ],
)
def test_what_is_no_pdf_fails_for_good(data: str, mime: str, kind: str) -> None:
    with pytest.raises(StepFailed) as caught:
        text(fake_context(), data, mime)
    assert (caught.value.type, caught.value.retryable) == (kind, False)


def test_a_pdf_with_a_password_is_refused() -> None:
    import io

    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(SAMPLE.sample_pdf())))
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    with pytest.raises(StepFailed) as caught:
        metadata(fake_context(), base64.b64encode(out.getvalue()).decode())
    assert caught.value.type == "Encrypted"
