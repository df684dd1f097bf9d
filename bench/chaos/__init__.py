"""Breaks a running product at random while partners order, then counts what became of each order.

Everything that is random follows from one seed, which is printed; the machine's timing does not.
"""
