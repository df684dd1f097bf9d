"""Ports for servers that are about to be started."""

import secrets
import socket
from collections.abc import Sequence
from typing import Final

# Below those that systems give to outgoing connections (Linux from 32768, others from 49152): such a
# connection can't take the port before the server has it, nor while the server is down for a restart.
_PORTS: Final[Sequence[int]] = range(15_000, 32_768)
_TRIES: Final = 200
_claims: Final[list[int]] = []  # descriptors: the process's end closes them


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and which nobody else is given while this process lives.

    Other stacks may start on the machine at the same time. What keeps them apart is the UDP port of the same
    number: it is held here until the process ends, however it ends. Raises OSError when there is none.
    """
    for _ in range(_TRIES):
        port = secrets.choice(_PORTS)
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim.detach())
        return port
    raise OSError(f"no free port of 127.0.0.1 between {_PORTS[0]} and {_PORTS[-1]}")
