"""A stand-in for the Main API: the same paths, fields, answers and headers, and no network.

It imports nothing of the product, so that a mistake in ours can't be repeated in what checks it.
"""
