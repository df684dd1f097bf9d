"""What an API key looks like: `dp_{live|test}_{id}_{secret}{checksum}`.

The id finds the row, the secret's SHA-256 is what we keep, and the checksum lets a scanner or this
server refuse a mistyped key without asking the database.
"""

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 16
SECRET_LENGTH = 43  # 43 characters of 62 are 256 bits
CHECKSUM_LENGTH = 6
PATTERN = re.compile(
    r"dp_(?P<environment>live|test)"
    rf"_(?P<id>[0-9A-Za-z]{{{ID_LENGTH}}})"
    rf"_(?P<secret>[0-9A-Za-z]{{{SECRET_LENGTH}}})"
    rf"(?P<checksum>[0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, repr=False)
class KeyText:
    """The parts of a key's text. Not printable by accident: repr shows the id only."""

    environment: str
    id: str
    secret: str

    def __repr__(self) -> str:
        return f"<KeyText dp_{self.environment}_{self.id}>"

    @classmethod
    def generate(cls, environment: str) -> "KeyText":
        return cls(environment, _random(ID_LENGTH), _random(SECRET_LENGTH))

    @classmethod
    def parse(cls, text: str) -> "KeyText | None":
        """None when the form or the checksum is wrong."""
        match = PATTERN.fullmatch(text)
        if match is None:
            return None
        parts = cls(match["environment"], match["id"], match["secret"])
        return parts if parts.checksum == match["checksum"] else None

    @property
    def prefix(self) -> str:
        """What may be shown and logged."""
        return f"dp_{self.environment}_{self.id}"

    @property
    def checksum(self) -> str:
        """CRC-32 of all that stands before it, as six base-62 digits."""
        number = zlib.crc32(f"{self.prefix}_{self.secret}".encode("ascii"))
        digits = ""
        for _ in range(CHECKSUM_LENGTH):
            number, digit = divmod(number, len(ALPHABET))
            digits = ALPHABET[digit] + digits
        return digits

    @property
    def text(self) -> str:
        return f"{self.prefix}_{self.secret}{self.checksum}"

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the secret. 256 random bits need no slow hash."""
        return hashlib.sha256(self.secret.encode("ascii")).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
