"""Which process of a server is ahead of the others."""

from partner_api.http.sharing import OpenConnections


def test_one_is_ahead_of_the_one_that_has_the_fewest() -> None:
    some = OpenConnections()
    for process, count in ((1, 5), (2, 3), (3, 9)):
        some.set(process, count)
    assert [some.ahead_of_least(process) for process in (1, 2, 3)] == [2, 0, 6]


def test_one_that_has_none_counts_and_one_that_has_ended_does_not() -> None:
    some = OpenConnections()
    some.set(1, 5)
    assert some.ahead_of_least(1) == 0, "alone"
    some.set(2, 0)
    assert some.ahead_of_least(1) == 5
    some.forget(2)
    assert some.ahead_of_least(1) == 0


def test_a_server_that_has_started_many_processes_reuses_their_places() -> None:
    some = OpenConnections()
    for process in range(1000):
        some.set(process, 7)
        some.forget(process)
    some.set(1000, 4)
    some.set(1001, 1)
    assert some.ahead_of_least(1000) == 3
