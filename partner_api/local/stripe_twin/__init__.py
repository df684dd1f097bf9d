"""A Stripe for one machine: the part of its API that billing uses, with the rules that bite.

It stands with the local stack because the demo and the tests share it. Nothing in the product imports
it or knows of it: the SDK is pointed here by two settings, as it could be at a proxy.
"""
