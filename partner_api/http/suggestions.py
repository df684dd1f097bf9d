"""What was probably meant by a name that we don't know."""

import difflib


def suggest(name: str, known: list[str]) -> str:
    """The end of a sentence: the nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}."
