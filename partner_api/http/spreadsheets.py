"""Text for a spreadsheet, which takes some for a formula and runs it: names and reasons come from people.

Where a cell begins is not only ours to say. Where the comma stands in numbers Excel splits at semicolons, and
then a quote that we opened further on holds nothing together, lines included.
"""

import re
from typing import Final

# A formula's first character; Excel knows the full-width ones too.
_FORMULA: Final = "=+\\-@＝＋－＠"  # noqa: RUF001 - as above
_AT_THE_START: Final = re.compile(rf"[\t\r\n]|\s*[{_FORMULA}]")
_FURTHER_ON: Final = re.compile(rf"([;\t\r\n]\s*)(?=[{_FORMULA}])")


def harmless(text: str) -> str:
    """The text, with an apostrophe before what would be a formula: it is shown then, and not run."""
    further_on = _FURTHER_ON.sub(r"\1'", text)
    return f"'{further_on}" if _AT_THE_START.match(text) else further_on
