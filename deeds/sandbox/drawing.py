"""Draws a deed that reads like one, shows the order's facts as text, and can't be taken for the real one."""

import io
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib.enums import TA_CENTER
from reportlab.lib.pagesizes import letter
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import inch
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    HRFlowable,
    KeepTogether,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

MARK: Final = "SANDBOX \N{EN DASH} NOT FOR RECORDING"
EXHIBIT_THRESHOLD: Final = 600
_LATIN: Final = TTFont("Deed", "Vera.ttf")
_BOLD: Final = TTFont("Deed-Bold", "VeraBd.ttf")
_OTHER: Final = "STSong-Light"
for _font in (_LATIN, _BOLD, UnicodeCIDFont(_OTHER)):
    pdfmetrics.registerFont(_font)
_LETTERS: Final = frozenset(_LATIN.face.charToGlyph)

_BODY: Final = ParagraphStyle("body", fontName="Deed", fontSize=9.5, leading=13, splitLongWords=1)
_SMALL: Final = ParagraphStyle("small", parent=_BODY, fontSize=8, leading=10.5)
_TITLE: Final = ParagraphStyle(
    "title", parent=_BODY, fontName="Deed-Bold", fontSize=15, leading=20, alignment=TA_CENTER
)
_GRANTING: Final = {
    "GRANT DEED": "hereby GRANT(S) to",
    "QUITCLAIM DEED": "do(es) hereby REMISE, RELEASE AND FOREVER QUITCLAIM to",
    "INTERSPOUSAL TRANSFER DEED": "hereby GRANT(S), as a transfer between spouses, to",
    "WARRANTY DEED": "hereby GRANT(S), with warranty of title, to",
    "TAX DEED": "hereby GRANT(S), by virtue of the sale for defaulted taxes, to",
}


def draw(title: str, body: dict[str, Any]) -> bytes:
    """The PDF. A missing fact leaves a blank line, as on the Main API's own."""
    output = io.BytesIO()
    document = SimpleDocTemplate(
        output,
        pagesize=letter,
        leftMargin=0.9 * inch,
        rightMargin=0.9 * inch,
        topMargin=0.6 * inch,
        bottomMargin=0.7 * inch,
        title=f"{title} ({MARK})",
        author="Sandbox Main API",
        invariant=1,
    )
    document.build([*_deed(title, body)], onFirstPage=_mark, onLaterPages=_mark)
    return output.getvalue()


def _deed(title: str, body: dict[str, Any]) -> list[Flowable]:
    legal = _given(body, "legal_description")
    is_exhibit = len(legal) > int(body.get("exhibit_threshold") or EXHIBIT_THRESHOLD)
    grantors = [part.strip() for part in _given(body, "grantors_text").split(";") if part.strip()]
    shown_legal = (
        "As described in EXHIBIT A, attached hereto and made a part hereof." if is_exhibit else legal
    )
    story: list[Flowable] = [
        _recording_block(body),
        Spacer(1, 8),
        _text(f"APN: {_given(body, 'apn')}", _SMALL),
        _text(
            f"Escrow No.: {_given(body, 'escrow_no')}    Title Order No.: {_given(body, 'title_order_no')}",
            _SMALL,
        ),
        Spacer(1, 10),
        Paragraph(escape(title), _TITLE),
        Spacer(1, 8),
        *[_text(line, _SMALL) for line in _tax_lines(body)],
        Spacer(1, 10),
        _text("FOR A VALUABLE CONSIDERATION, receipt of which is hereby acknowledged,"),
        _text("; ".join(grantors) or "_" * 40),
        _text(_GRANTING[title]),
        _text(" ".join(_given(body, name) for name in ("grantees_text", "vesting")).strip() or "_" * 40),
        _text(
            f"the real property in the County of {_given(body, 'county') or '_' * 20}, "
            "State of California, described as follows:"
        ),
        Spacer(1, 4),
        *_paragraphs(shown_legal or "_" * 40),
        Spacer(1, 4),
        _text(f"Commonly known as: {_given(body, 'property_address')}"),
    ]
    if body.get("covenants"):
        story += [Spacer(1, 6), _text("COVENANTS:"), *_paragraphs(_given(body, "covenants"))]
    if body.get("tax_sale_ref"):
        story += [Spacer(1, 6), _text(f"Tax sale reference: {_given(body, 'tax_sale_ref')}")]
    story += [Spacer(1, 12), _text(f"Dated: {_given(body, 'execution_date') or '_' * 20}")]
    story += [_signature(grantor) for grantor in grantors or [""]]
    if is_exhibit:
        story += [PageBreak(), Paragraph("EXHIBIT A", _TITLE), Spacer(1, 10), *_paragraphs(legal)]
    return [*story, PageBreak(), *_acknowledgment(grantors)]


def _recording_block(body: dict[str, Any]) -> Flowable:
    to = body.get("return_to") or {}
    city = ", ".join(str(to[name]) for name in ("city", "state") if to.get(name))
    lines = [str(to[name]) for name in ("name", "company", "address1", "address2") if to.get(name)]
    left = [
        _text("RECORDING REQUESTED BY:", _SMALL),
        _text(_given(body, "requested_by") or _given(body, "title_company"), _SMALL),
        _text(_given(body, "title_company"), _SMALL) if body.get("requested_by") else Spacer(1, 1),
        Spacer(1, 6),
        _text("WHEN RECORDED MAIL TO:", _SMALL),
        *[_text(line, _SMALL) for line in [*lines, f"{city} {to.get('zip') or ''}".strip()]],
    ]
    right = [Spacer(1, 84), _text("SPACE ABOVE THIS LINE FOR RECORDER'S USE", _SMALL)]
    return Table(
        [[left, right]],
        colWidths=[3.2 * inch, 3.5 * inch],
        style=[
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LINEAFTER", (0, 0), (0, 0), 0.7, "black"),
            ("LINEBELOW", (0, 0), (-1, -1), 0.7, "black"),
        ],
    )


def _tax_lines(body: dict[str, Any]) -> list[str]:
    lines = []
    dtt = body.get("dtt")
    if dtt:
        if dtt.get("is_exempt"):
            lines.append(f"Documentary transfer tax: EXEMPT. {dtt.get('exemption_reason') or ''}")
        else:
            lines.append(f"Documentary transfer tax is ${dtt.get('amount')}")
            basis = "full value" if dtt.get("basis") == "full_value" else "full value less liens"
            lines.append(f"[X] computed on {basis} of the property conveyed")
        if dtt.get("area_type") == "city":
            lines.append(f"[X] City of {dtt.get('city_name')}")
        elif dtt.get("area_type"):
            lines.append("[X] Unincorporated area")
    if body.get("dtt_exempt_reason"):
        lines.append(f"Documentary transfer tax: EXEMPT. {body['dtt_exempt_reason']}")
    return lines


def _signature(name: str) -> Flowable:
    line = HRFlowable(width=3.2 * inch, thickness=0.7, color="black", hAlign="LEFT")
    return KeepTogether([Spacer(1, 26), line, _text(name, _SMALL)])


def _acknowledgment(grantors: list[str]) -> list[Flowable]:
    return [
        Paragraph("ACKNOWLEDGMENT", _TITLE),
        Spacer(1, 10),
        _text(
            "A notary public or other officer completing this certificate verifies only the identity "
            "of the individual who signed the document to which this certificate is attached, and not "
            "the truthfulness, accuracy, or validity of that document.",
            _SMALL,
        ),
        Spacer(1, 12),
        _text("State of California"),
        _text("County of " + "_" * 30),
        Spacer(1, 8),
        _text("On " + "_" * 20 + " before me, " + "_" * 30 + ", personally appeared"),
        _text("; ".join(grantors) or "_" * 40),
        Spacer(1, 8),
        _text("WITNESS my hand and official seal."),
        Spacer(1, 30),
        _text("Signature " + "_" * 40 + "  (Seal)"),
    ]


def _given(body: dict[str, Any], name: str) -> str:
    return str(body.get(name) or "")


def _paragraphs(text: str) -> list[Flowable]:
    return [_text(line) for line in text.splitlines() if line.strip()]


def _text(text: str, style: ParagraphStyle = _BODY) -> Paragraph:
    """A paragraph of text as it is: markup escaped, letters that the font lacks in one that has them."""
    parts = []
    run, is_other = "", False
    for character in text:
        needs_other = ord(character) not in _LETTERS
        if needs_other != is_other:
            parts.append(_run(run, is_other=is_other))
            run, is_other = "", needs_other
        run += character
    parts.append(_run(run, is_other=is_other))
    return Paragraph("".join(parts), style)


def _run(text: str, *, is_other: bool) -> str:
    safe = escape(text)
    return f'<font name="{_OTHER}">{safe}</font>' if is_other and safe else safe


def _mark(canvas: Canvas, document: SimpleDocTemplate) -> None:
    canvas.saveState()
    canvas.setFont("Deed-Bold", 8)
    canvas.setFillGray(0.35)
    canvas.drawCentredString(letter[0] / 2, 0.4 * inch, f"{MARK}    page {document.page}")
    canvas.setFont("Deed-Bold", 34)
    canvas.setFillGray(0.9)
    canvas.translate(letter[0] / 2, letter[1] / 2)
    canvas.rotate(52)
    canvas.drawCentredString(0, 0, "SANDBOX")
    canvas.restoreState()
