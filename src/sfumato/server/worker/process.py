"""Where a worker process begins: torch is imported here, not by the server."""

from multiprocessing.connection import Connection

from sfumato.options import DeviceOptions


def main(
    connection: Connection,
    questions: Connection,
    model: str,
    device: DeviceOptions,
    memory: int | None,
    rows: int,
    safety: bool,
) -> None:
    """Load `model`, then draw the jobs that come over `connection`, and meanwhile answer `questions`; the
    others are a `Worker`'s.
    """
    import signal

    # Ctrl-C reaches the whole group of processes; the server decides when its workers end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from threading import Thread

    from sfumato.server.worker.answering import answer_all
    from sfumato.server.worker.loop import Worker

    Thread(target=answer_all, args=(questions,), name="answering", daemon=True).start()
    worker = Worker(connection, device, memory, rows, safety)
    worker.load(model)
    worker.run()
