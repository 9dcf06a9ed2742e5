"""A small real PDF, written by hand: what the demo and the tests feed to the document pipeline."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["PAGES", "sample_pdf"]

PAGES = (
    (
        "Contract 4711",
        "Between the buyer and the seller the following is agreed.",
        "The seller delivers forty cups.",
    ),
    ("Delivery", "Delivery is made within ten working days.", "The carrier is chosen by the seller."),
    ("Payment", "The price is 500.00 EUR, payable on receipt.", "Late payment bears interest."),
    ("Signatures", "Madrid, 20 November 2026.", "Signed by both parties."),
)


def sample_pdf(
    pages: Sequence[Sequence[str]] = PAGES, title: str = "Contract 4711", author: str = "Ada"
) -> bytes:
    """A PDF 1.4 file with one page for each sequence of lines."""
    objects: list[bytes] = []
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(len(pages)))
    objects.append(b"<< /Type /Catalog /Pages 2 0 R >>")
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    for index, lines in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * index} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        shown = " T* ".join(f"({_escape(line)}) Tj" for line in lines)
        content = f"BT /F1 14 Tf 72 770 Td 22 TL {shown} ET".encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    objects.append(
        f"<< /Title ({_escape(title)}) /Author ({_escape(author)}) /Producer (wpa example) "
        "/CreationDate (D:20261120100000Z) >>".encode("latin-1")
    )
    return _assemble(objects)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _assemble(objects: list[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        out += b"%010d 00000 n \n" % offset
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\n" % (len(objects) + 1, len(objects))
    out += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(out)
