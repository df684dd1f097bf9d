"""`python -m bench [SUITE…]`: all suites, or those named."""

import sys
from pathlib import Path

from bench import harness, keys

if __name__ == "__main__":
    sys.exit(harness.main({"keys": keys.run}, sys.argv[1:], Path("var/bench/report.json")))
