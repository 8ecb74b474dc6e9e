"""The Ray cluster of a server: joined where there is one, started on this machine otherwise."""

import logging
import os
import signal

from sfumato.errors import UsageError

CLIENT, NEW = "ray://", "local"
"""What `RAY_ADDRESS` begins with for a program outside the cluster, and what it is for a new cluster."""


def connect() -> None:
    """Join the cluster that `RAY_ADDRESS` names, or that of this machine; start one if there is none, or if
    it is "local".

    A cluster that is started here ends with the thread that called, sends no usage statistics and has no
    dashboard: call this from the main thread. Raises `UsageError`.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(CLIENT):
        raise UsageError(
            f"RAY_ADDRESS is {address}: the server must run on a node of the cluster, "
            "with an address such as HOST:6379"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve  # noqa: F401  (its logger is set up here)

    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    dashboard = False if address in ("", NEW) else None
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"Ray cannot be joined or started: {error}") from None
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own
