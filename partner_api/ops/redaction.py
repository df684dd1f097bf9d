"""Takes secrets out of text that leaves the process: the last wall, behind code that puts none in.

It knows secrets by their form (API keys, bearer tokens, signing and Stripe secrets, passwords in URLs,
signatures of links) and the two places where libraries quote what a partner sent: Postgres' DETAIL of a
failed constraint, and pydantic's input values. Names and addresses have no form; keeping them out is
the business of whoever logs, and tests hold it.
"""

import re
from typing import Final

GONE: Final = "[redacted]"

# Where a word begins. In a JSON line, the end of the line before it is a backslash and a letter.
_EDGE: Final = r"(?:\b|(?<=\\[nrtbf]))"

# What a text with such a secret holds, in lower case, and the secret. It is replaced up to its first group,
# which says what it was. Most lines hold none, and looking for a word costs far less than for a pattern.
_SECRETS: Final = tuple(
    (words, re.compile(pattern.replace(r"\b", _EDGE)))
    for words, pattern in (
        (("dp_live_", "dp_test_"), r"(dp_(?:live|test)_[0-9A-Za-z]{4,16})_[0-9A-Za-z]{8,}"),
        (("k_live_", "k_test_"), r"(\b(?:sk|rk|pk)_(?:live|test)_)[0-9A-Za-z]{8,}"),
        (("whsec_",), r"(\bwhsec_)[0-9A-Za-z+/=_-]{8,}"),
        (("bearer ",), r"((?i:\bbearer) )[^\s\"',\\]{6,}"),
        (("eyj",), r"(\beyJ)[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]+\.[0-9A-Za-z_-]*"),
        (("://",), r"(://[^\s:/@\"]{0,100}:)[^\s@/\"]+(?=@)"),
        (
            ("signature=", "token=", "api_key="),
            r"([?&](?:signature|X-Amz-Signature|Signature|token|api_key)=)[^\s&\"'\\]+",
        ),
        (("detail:",), r"(\bDETAIL:  ?)(?:(?!\\n|\n).)+"),
        (("input_value=",), r"(\binput_value=).+?(?=, input_type)"),
    )
)


def redact(text: str) -> str:
    """The text with `[redacted]` in each secret's place; what tells keys apart stays."""
    lowered = text.lower()
    for words, pattern in _SECRETS:
        if any(word in lowered for word in words):
            text = pattern.sub(rf"\1{GONE}", text)
    return text
