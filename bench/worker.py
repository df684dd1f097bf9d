"""What a deed costs a worker beyond the Main API's own time; what it costs in memory is in bench.memory."""

import time
from typing import Any, Final

from bench.harness import Bench, Figure, at_most, facts

DEEDS: Final = 24
RENDER_SECONDS: Final = 0.45


def run(bench: Bench) -> list[Figure]:
    """`worker_overhead`, with a Main API that takes as long as the real one."""
    from django.conf import settings

    settings.MAIN_API_BASE_URL = bench.sandbox(RENDER_SECONDS)
    found = measure(deeds=DEEDS)
    detail = facts(call_ms=found["call_ms"], own_ms=found["own_ms"], deeds=found["completed"])
    return [at_most("worker_overhead", found["worker_overhead"], 1.05, detail)]


def measure(*, deeds: int) -> dict[str, float]:
    """`worker_overhead` (worker time ÷ time in the call), and milliseconds a deed."""
    from bench.orders import partner_with_key, queue
    from deeds import fulfilment

    in_call = 0.0
    render = fulfilment.render  # type: ignore[attr-defined]  # what is measured is put around it

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal in_call
        started = time.perf_counter()
        try:
            return render(*args, **kwargs)
        finally:
            in_call += time.perf_counter() - started

    partner, _ = partner_with_key("Bench worker")
    queue(partner, deeds)
    fulfilment.serve(is_bulk=True)  # opens the connections
    fulfilment.render = timed  # type: ignore[attr-defined]  # as above
    started = time.perf_counter()
    for number in range(1, deeds):
        if not fulfilment.serve(is_bulk=True):
            message = f"only {number} of {deeds} deeds were served"
            raise RuntimeError(message)
    total = time.perf_counter() - started
    fulfilment.render = render  # type: ignore[attr-defined]  # as above
    completed = partner.deeds.filter(status="completed").count()
    return {
        "completed": completed,
        "worker_overhead": round(total / in_call, 4),
        "call_ms": round(in_call / (deeds - 1) * 1000, 1),
        "own_ms": round((total - in_call) / (deeds - 1) * 1000, 1),
    }
