"""The systems that can send orders: every module of `webhooks.adapters` with a SIGNATURE_HEADER.

A further system is a module there, and a source for each partner that uses it.
"""

import importlib
import pkgutil
from typing import Any, Final, Protocol, cast

from deeds.reading import Reading
from webhooks import adapters


class Adapter(Protocol):
    SIGNATURE_HEADER: str

    def read(self, body: Any) -> Reading:
        """The order of a payload. Raises Problem for what can't become one."""


def _found() -> dict[str, Adapter]:
    modules = {
        info.name: importlib.import_module(f"{adapters.__name__}.{info.name}")
        for info in pkgutil.iter_modules(adapters.__path__)
    }
    return {
        name: cast("Adapter", module)
        for name, module in modules.items()
        if hasattr(module, "SIGNATURE_HEADER")
    }


SYSTEMS: Final = _found()
