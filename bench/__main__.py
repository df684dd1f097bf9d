"""`python -m bench [SUITE…]`: all suites, or those named."""

import sys
from pathlib import Path

from bench import accepting, billing, harness, keys, usage, webhooks, worker

SUITES = {
    "keys": keys.run,
    "accepting": accepting.run,
    "worker": worker.run,
    "usage": usage.run,
    "billing": billing.run,
    "webhooks": webhooks.run,
}

if __name__ == "__main__":
    sys.exit(harness.main(SUITES, sys.argv[1:], Path("var/bench/report.json")))
