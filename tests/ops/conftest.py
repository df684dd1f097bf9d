"""The deployed product is needed here as well."""

from tests.e2e.conftest import deployment

__all__ = ["deployment"]
