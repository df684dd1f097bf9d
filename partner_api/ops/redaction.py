"""Takes secrets out of text that leaves the process: the last wall, behind code that puts none in.

It knows secrets by their form (API keys, bearer tokens, signing and Stripe secrets, passwords in URLs,
signatures of links) and the two places where libraries quote what a partner sent: Postgres' DETAIL of a
failed constraint, and pydantic's input values. Names and addresses have no form; keeping them out is
the business of whoever logs, and tests hold it.
"""

import re
from typing import Final

GONE: Final = "[redacted]"

# Each is replaced up to its first group, which says what it was.
_SECRETS: Final = re.compile(
    r"(\bdp_(?:live|test)_[0-9A-Za-z]{4,16})_[0-9A-Za-z]{8,}"
    r"|(\b(?:sk|rk|pk)_(?:live|test)_)[0-9A-Za-z]{8,}"
    r"|(\bwhsec_)[0-9A-Za-z+/=_-]{8,}"
    r"|((?i:\bbearer) )[^\s\"',\\]{6,}"
    r"|(\beyJ)[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]+\.[0-9A-Za-z_-]*"
    r"|(://[^\s:/@\"]{0,100}:)[^\s@/\"]+(?=@)"
    r"|([?&](?:signature|X-Amz-Signature|Signature|token|api_key)=)[^\s&\"'\\]+"
    r"|(\bDETAIL:  ?)(?:(?!\\n|\n).)+"
    r"|(\binput_value=).+?(?=, input_type)"
)


def redact(text: str) -> str:
    """The text with `[redacted]` in each secret's place; what tells keys apart stays."""
    return _SECRETS.sub(_without, text)


def _without(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None) + GONE
