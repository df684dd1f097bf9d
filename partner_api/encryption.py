"""What must be read back and seen by nobody else is kept encrypted, by a key that can be rotated.

The first of FIELD_ENCRYPTION_KEYS encrypts, all of them decrypt. Processes of both lists run side by side
while a list is rolled out, so a new key comes last at first, and only once all have it does it come first;
then `rotate` encrypts anew, and the old one is dropped. It stands below both `http` and `ops`, which may
not know each other.
"""

from functools import lru_cache

from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings


def encrypt(text: str) -> str:
    return encrypt_bytes(text.encode()).decode("ascii")


def decrypt(token: str) -> str:
    """Raises cryptography's InvalidToken when no key fits."""
    return decrypt_bytes(token.encode("ascii")).decode()


def rotate(token: str) -> str:
    """The same secret, encrypted by the first key."""
    return rotate_bytes(token.encode("ascii")).decode("ascii")


def encrypt_bytes(content: bytes) -> bytes:
    return _fernet().encrypt(content)


def decrypt_bytes(token: bytes) -> bytes:
    """Raises cryptography's InvalidToken when no key fits."""
    return _fernet().decrypt(token)


def rotate_bytes(token: bytes) -> bytes:
    """The same content, encrypted by the first key."""
    return _fernet().rotate(token)


def are_keys_usable() -> bool:
    """Whether FIELD_ENCRYPTION_KEYS has a key, and each is one of Fernet's."""
    try:
        _fernet()
    except ValueError:
        return False
    return True


def _fernet() -> MultiFernet:
    return _of(tuple(settings.FIELD_ENCRYPTION_KEYS))


@lru_cache(maxsize=4)
def _of(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])
