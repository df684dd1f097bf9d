"""`python -m partner_api.local.stripe_twin --port 0 [--webhook-url URL]`: a twin in a process of its own."""

import argparse
import os
import threading

from partner_api.local.stripe_twin.control import ControlledApp
from partner_api.local.stripe_twin.server import Twin, server_of
from partner_api.local.stripe_twin.world import World


def main() -> None:
    """Serves until it is ended. The secrets are those of the environment, as the product's are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--webhook-url", default="")
    parser.add_argument("--work-seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    secret, _, _ = os.environ.get("STRIPE_WEBHOOK_SECRETS", "whsec_twin").partition(",")
    key = os.environ.get("STRIPE_SECRET_KEY") or "sk_test_twin"
    twin = Twin(World(secret_key=key, work_seconds=arguments.work_seconds), webhook_secret=secret)
    server = server_of(ControlledApp(twin), arguments.port)
    if arguments.webhook_url:
        sender = threading.Thread(target=_deliver, args=[twin, arguments.webhook_url], daemon=True)
        sender.start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201 - whoever starts it reads this
    server.serve_forever(poll_interval=0.1)


def _deliver(twin: Twin, url: str) -> None:
    pause = threading.Event()
    while not pause.wait(0.3):
        twin.webhooks.send(url)


if __name__ == "__main__":
    main()
