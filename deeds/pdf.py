"""Whether what the Main API answered is the deed that was ordered: a PDF that opens, and names its facts."""

import hashlib
import io
import re
import struct
import time
import unicodedata
import zlib
from dataclasses import dataclass

from django.conf import settings
from pypdf import Configuration, PageObject, PdfReader, apply_configuration
from pypdf.errors import DependencyError, PyPdfError
from pypdf.generic import DictionaryObject

_LOOKED_AT_PAGES = 5
_PATIENCE_SECONDS = 5.0
# What one stream may become when it is unpacked: some fifty times what a page of a deed holds.
_UNPACKED_BYTES = 2 * 1024 * 1024
_LIMITS = Configuration(
    zlib_maximum_output_length=_UNPACKED_BYTES,
    lzw_maximum_output_length=_UNPACKED_BYTES,
    run_length_maximum_output_length=_UNPACKED_BYTES,
    array_based_stream_maximum_output_length=_UNPACKED_BYTES,
    disable_legacy_handling=True,
)
# A broken PDF makes the reader fail in many ways, and each of them says: this is no deed. Not `Exception`:
# the end of a task's time is one.
_BREAKS = (
    *(PyPdfError, DependencyError, zlib.error, struct.error),
    *(ValueError, ArithmeticError, LookupError, TypeError, AttributeError, OSError, EOFError),
    *(RecursionError, MemoryError, AssertionError, NotImplementedError),
)
# A string in a page's content (ISO 32000-1, 7.3.4.2), and what stands for another character in it. Comments
# and escapes are passed over, and an open string ends with the page: from no character is it begun twice.
_STRING = re.compile(rb"%[^\r\n]*+|\\.|\(((?:[^\\()]++|\\.)*+)(?:\)|\Z)", re.DOTALL)
# What shows text or an inline image (ISO 32000-1, 9.4.3 and 8.9.7).
_SHOWING = frozenset({b"Tj", b"TJ", b"'", b'"', b"INLINE IMAGE"})
_OCTAL = frozenset(b"%d" % digit for digit in range(8))
_ESCAPED = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)


class NotADeed(Exception):
    """The reason why the bytes can't be handed to a partner."""


@dataclass(frozen=True)
class CheckedPdf:
    content: bytes
    sha256: str
    pages: int


def check(content: bytes, *, grantors: list[str], apn: str) -> CheckedPdf:
    """Raises NotADeed. A page that shows what can't be read (a scanned form, an odd font) is let pass."""
    if not content.startswith(b"%PDF-"):
        raise NotADeed("the answer is no PDF")
    try:
        with apply_configuration(_LIMITS):
            return _read(content, grantors, apn)
    except NotADeed:
        raise
    except _BREAKS as error:
        raise NotADeed(f"the PDF can't be read ({type(error).__name__})") from error


def _read(content: bytes, grantors: list[str], apn: str) -> CheckedPdf:
    reader = PdfReader(io.BytesIO(content), strict=False)
    if reader.is_encrypted:
        raise NotADeed("the PDF is encrypted")
    pages = len(reader.pages)
    if not 1 <= pages <= settings.PDF_MAX_PAGES:
        raise NotADeed(f"the PDF has {pages} pages")
    if b"%%EOF" not in content[-2048:]:
        raise NotADeed("the PDF is cut off")
    if not _names_one_of((*grantors, apn), reader, min(pages, _LOOKED_AT_PAGES)):
        raise NotADeed("the PDF names neither a grantor nor the APN")
    return CheckedPdf(content, hashlib.sha256(content).hexdigest(), pages)


def _names_one_of(facts: tuple[str, ...], reader: PdfReader, pages: int) -> bool:
    """Whether one of the facts stands on the first pages; True where what they show is no text to us.

    Reading text is most of what a deed costs us, so it ends with the first fact found, and begins with
    what stands in the page as it is. Raises NotADeed for what takes too long: forms drawn within forms,
    and for pages that show nothing.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    shown = False

    def look(operator: bytes, *_: object) -> None:
        nonlocal shown
        shown = shown or operator in _SHOWING
        if time.monotonic() > deadline:
            raise NotADeed("reading the PDF takes too long")

    # A fact without letters would be found in anything.
    wanted = [letters for letters in map(_letters, facts) if letters]
    found = ""
    for index in range(pages):
        page = reader.pages[index]
        plain = _letters(_plain_text(page))
        if any(fact in plain for fact in wanted):
            return True
        found += _letters(page.extract_text(visitor_operand_before=look) + _filled_in(page))
        # The reader goes on after a form that raised, so it is looked at once more.
        look(b"")
        if any(fact in found for fact in wanted):
            return True
        shown = shown or bool(len(page.images))
    if not shown:
        raise NotADeed("the PDF is blank")
    return not found


def _filled_in(page: PageObject) -> str:
    """What stands in the fields of a form: a viewer shows it, and the page's own text does not have it."""
    texts = []
    for annotation in page.annotations or ():
        field = annotation.get_object()
        for _ in range(2):
            if not isinstance(field, DictionaryObject):
                break
            if "/V" in field:
                texts.append(str(field["/V"]))
            # Several places of one field have their value with their parent.
            field = field["/Parent"] if "/Parent" in field else None  # noqa: SIM401 - `get` would give a reference
    return "".join(texts)


def _plain_text(page: PageObject) -> str:
    """The strings that a page shows, as if each code were its letter, which it is in the standard fonts.

    In a font that numbers its glyphs otherwise this is no text at all, and matches no fact.
    """
    contents = page.get_contents()
    shown = b"".join(_STRING.findall(b"" if contents is None else contents.get_data()))
    return _ESCAPED.sub(_unescaped, shown).decode("cp1252", errors="ignore")


def _unescaped(escape: re.Match[bytes]) -> bytes:
    escaped = escape[1]
    # An 8 or 9 is no octal digit, and stands for itself (ISO 32000-1, 7.3.4.2).
    return bytes([int(escaped, 8) & 0xFF]) if escaped[:1] in _OCTAL else escaped


def _letters(text: str) -> str:
    """Letters and digits alone: how lines wrap, and how a font composes accents, does not count."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text)).casefold()
