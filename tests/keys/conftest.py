"""A member of staff, and the back office's API switched on."""

from typing import Any

import pytest

from tests.keys.back_office import SECRET
from tests.staff import hire


@pytest.fixture
def shared_secret(settings: Any) -> None:
    """The back office's API is on, and takes tokens signed by SECRET."""
    settings.ADMIN_JWT_SECRET = SECRET
    settings.ADMIN_JWT_AUDIENCE, settings.ADMIN_JWT_ISSUER = "partner-api-admin", "main-api"


@pytest.fixture
def owner(db: None) -> Any:
    return hire("ada", "owner")
