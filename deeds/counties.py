"""California's 58 counties (Government Code sections 23101 to 23158)."""

import difflib
from typing import Final

COUNTIES: Final = (
    "Alameda", "Alpine", "Amador", "Butte", "Calaveras", "Colusa", "Contra Costa", "Del Norte",
    "El Dorado", "Fresno", "Glenn", "Humboldt", "Imperial", "Inyo", "Kern", "Kings", "Lake",
    "Lassen", "Los Angeles", "Madera", "Marin", "Mariposa", "Mendocino", "Merced", "Modoc", "Mono",
    "Monterey", "Napa", "Nevada", "Orange", "Placer", "Plumas", "Riverside", "Sacramento",
    "San Benito", "San Bernardino", "San Diego", "San Francisco", "San Joaquin", "San Luis Obispo",
    "San Mateo", "Santa Barbara", "Santa Clara", "Santa Cruz", "Shasta", "Sierra", "Siskiyou",
    "Solano", "Sonoma", "Stanislaus", "Sutter", "Tehama", "Trinity", "Tulare", "Tuolumne",
    "Ventura", "Yolo", "Yuba",
)  # fmt: skip

_BY_KEY: Final = {name.casefold(): name for name in COUNTIES}


def canonical(text: str) -> str | None:
    """The county's name for any capitals, spaces around it and a trailing "County"; else None."""
    key = " ".join(text.split()).casefold()
    return _BY_KEY.get(key) or _BY_KEY.get(key.removesuffix(" county"))


def nearest(text: str) -> str | None:
    """The county most likely meant by a name that is none."""
    key = " ".join(text.split()).casefold().removesuffix(" county")
    near = difflib.get_close_matches(key, _BY_KEY, n=1, cutoff=0.5)
    return _BY_KEY[near[0]] if near else None
