"""PDFs in a folder: of one machine, or a network file system that all processes share.

A file is written under a draft's name, flushed to the disk and then linked to its own name, so that
neither a crash nor a full disk leaves half a PDF, and of two writers the first one stays.
"""

import datetime as dt
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.files.storage import FileSystemStorage

from deeds.stores import StoredObject, StoreUnavailable

_DRAFT = ".draft"
# With less than this a disk is called full, while the last PDFs still go onto it.
_ROOM_BYTES = 64 * 1024 * 1024


class LocalStore(FileSystemStorage):
    def put(self, name: str, content: bytes, *, file_name: str, replace: bool = False) -> bool:
        """Keeps `content` under `name`. False when another content is there, unless it is to be replaced."""
        target = Path(self.path(name))
        draft = target.with_name(f"{uuid.uuid4().hex}{_DRAFT}")
        with _refusals():
            _make(target.parent)
            try:
                _write(draft, content)
                if replace:
                    draft.replace(target)
                else:
                    os.link(draft, target)
            except FileExistsError:
                return hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(content).digest()
            finally:
                draft.unlink(missing_ok=True)
            _flush(target.parent)
        return True

    def get(self, name: str) -> bytes | None:
        """The whole content, or None when there is none."""
        with _refusals():
            try:
                return Path(self.path(name)).read_bytes()
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Nothing happens when it is not there."""
        with _refusals():
            Path(self.path(name)).unlink(missing_ok=True)

    def tag(self, name: str, retention: str) -> None:
        """A folder has no rules that delete by themselves, so nobody has to be told."""

    def walk(self, folder: str = "") -> Iterator[StoredObject]:
        """Every file below the folder, also a draft that is being written, or that a dead writer left."""
        root = Path(self.location)
        with _refusals():
            for path in sorted((root / folder).rglob("*")):
                if path.is_file():
                    facts = path.stat()
                    modified_at = dt.datetime.fromtimestamp(facts.st_mtime, dt.UTC)
                    yield StoredObject(path.relative_to(root).as_posix(), facts.st_size, modified_at)

    def address(self, name: str, *, file_name: str, expires_at: dt.datetime) -> str | None:
        """None: a folder has no address of its own, and we send the file ourselves."""
        return None

    def ping(self) -> None:
        """Raises StoreUnavailable when a PDF could not be kept now."""
        root = Path(self.location)
        with _refusals():
            if not root.exists():
                root.mkdir(parents=True, mode=0o700)
            if not os.access(root, os.W_OK | os.X_OK) or not root.is_dir():
                message = "the folder can't be written to"
                raise StoreUnavailable(message)
            if shutil.disk_usage(root).free < _ROOM_BYTES:
                message = "the disk is full"
                raise StoreUnavailable(message)


def _make(folder: Path) -> None:
    """The folder and those above it, each with its name on the disk."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(exist_ok=True, mode=0o700)
    _flush(folder.parent)


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """A new name is on the disk once its folder is."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error.strerror}") from error
