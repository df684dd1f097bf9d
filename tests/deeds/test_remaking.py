"""A PDF that the storage lost is made again, while others do the same or the time of the PDF ends."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from deeds import keeping, storage
from deeds.models import Deed
from deeds.remaking import NotRemade, remake
from keys.audit import Actor
from tests.conftest import MainApi
from tests.deeds.kept import Complete

STAFF = Actor.system("test")


@pytest.fixture
def lost(complete: Complete, transactional_db: None) -> Deed:
    deed = complete(days_ago=29)
    storage.remove(deed)
    return deed


def meanwhile(main_api: MainApi, act: Callable[[], object]) -> list[object]:
    """Has an act done while the renderer draws, whose answer then differs from what it draws otherwise."""
    done: list[object] = []
    sandbox = main_api.answer

    def draws(environ: Any, start_response: Any) -> list[bytes]:
        main_api.answer = sandbox
        try:
            done.append(act())
        except NotRemade as refused:
            done.append(str(refused))
        finally:
            connection.close()
        content = b"".join(sandbox(environ, lambda *_: None)) + b"% the other\n"
        start_response("200 OK", [("Content-Type", "application/pdf"), ("Content-Length", str(len(content)))])
        return [content]

    main_api.answer = draws
    return done


def test_of_two_at_once_one_makes_it_and_the_row_tells_what_is_stored(lost: Deed, main_api: MainApi) -> None:
    other = Deed.objects.get(pk=lost.pk)
    others = meanwhile(main_api, lambda: remake(other, STAFF, "lost"))
    remake(lost, STAFF, "lost")
    assert others == ["It is being rendered again by someone else."]
    lost.refresh_from_db()
    assert hashlib.sha256(storage.read(lost) or b"").hexdigest() == lost.pdf_sha256


def test_what_was_deleted_meanwhile_is_not_stored_again(lost: Deed, main_api: MainApi, settings: Any) -> None:
    settings.PDF_RETENTION_DAYS = 28
    assert meanwhile(main_api, keeping.delete_outdated) == []
    with pytest.raises(NotRemade, match="deleted as agreed"):
        remake(lost, STAFF, "lost")
    assert storage.read(lost) is None
