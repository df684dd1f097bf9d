"""Whether what the Main API answered is the deed that was ordered: a PDF that opens, and names its facts."""

import hashlib
import io
import re
import unicodedata
from dataclasses import dataclass

from django.conf import settings
from pypdf import PdfReader
from pypdf.errors import PyPdfError

_LOOKED_AT_PAGES = 5


class NotADeed(Exception):
    """The reason why the bytes can't be handed to a partner."""


@dataclass(frozen=True)
class CheckedPdf:
    content: bytes
    sha256: str
    pages: int


def check(content: bytes, *, grantors: list[str], apn: str) -> CheckedPdf:
    """Raises NotADeed. Text that can't be extracted (a scanned form, an odd font) is let pass."""
    if not content.startswith(b"%PDF-"):
        raise NotADeed("the answer is no PDF")
    try:
        reader = PdfReader(io.BytesIO(content), strict=False)
        if reader.is_encrypted:
            raise NotADeed("the PDF is encrypted")
        pages = len(reader.pages)
        if not 1 <= pages <= settings.PDF_MAX_PAGES:
            raise NotADeed(f"the PDF has {pages} pages")
        if b"%%EOF" not in content[-2048:]:
            raise NotADeed("the PDF is cut off")
        text = "".join(reader.pages[index].extract_text() for index in range(min(pages, _LOOKED_AT_PAGES)))
    except NotADeed:
        raise
    # A broken PDF makes the reader fail in many ways, and each of them says: this is no deed.
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise NotADeed(f"the PDF can't be read ({type(error).__name__})") from error
    except (RecursionError, MemoryError, AssertionError, NotImplementedError) as error:
        raise NotADeed(f"the PDF can't be read ({type(error).__name__})") from error
    found = _letters(text)
    if found and not any(_letters(fact) in found for fact in (*grantors, apn)):
        raise NotADeed("the PDF names neither a grantor nor the APN")
    return CheckedPdf(content, hashlib.sha256(content).hexdigest(), pages)


def _letters(text: str) -> str:
    """Letters and digits alone: how lines wrap, and how a font composes accents, does not count."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text)).casefold()
