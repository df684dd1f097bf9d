"""How fast what claims to be fast is: each figure a ratio to something that runs beside it."""
