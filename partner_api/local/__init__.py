"""The whole product on one machine without installing anything: engines, supervision, the demo.

The apps never import this package.
"""
