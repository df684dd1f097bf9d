"""How many connections each process of a server has open, in memory that all of them see.

All processes wait at one door, and the kernel lets in whoever comes first. Clients keep their connections,
so that one process may get all the work of a busy day while another has none.
"""

import mmap
from typing import Final

# More than the processes that a server has at a time, those that end included.
_PLACES: Final = 256


class OpenConnections:
    """Must be made before the processes are forked. A process is known by a number, of which each process
    has another; where so many were started that one's place is another's, both only seem alike.
    """

    def __init__(self) -> None:
        # One more than there are, so that none says that there is no such process.
        self._counts = memoryview(mmap.mmap(-1, 4 * _PLACES)).cast("i")

    def set(self, process: int, count: int) -> None:
        self._counts[process % _PLACES] = count + 1

    def forget(self, process: int) -> None:
        """Once it has ended, however it did."""
        self._counts[process % _PLACES] = 0

    def ahead_of_least(self, process: int) -> int:
        """How many more this process has than the one that has the fewest."""
        counts = [count for count in self._counts.tolist() if count]
        return self._counts[process % _PLACES] - min(counts) if counts else 0
