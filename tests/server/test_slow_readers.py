"""A client that does not take its answer is not waited for without end."""

import socket
import threading

import uvicorn

from sfumato.server import deadline

PARTS, PART = 64, b"x" * (1 << 20)
"""More than the buffers between a server and its client hold."""


def test_a_connection_whose_client_does_not_read_is_closed(monkeypatch):
    monkeypatch.setattr(deadline, "ANSWER_SECONDS", 0.2)
    over = threading.Event()

    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(PARTS):  # each waits for the client, as long as it is there
            await send({"type": "http.response.body", "body": PART, "more_body": number < PARTS - 1})
        over.set()

    protocol = deadline.deadline_protocol(60)
    config = uvicorn.Config(answer, loop="asyncio", http=protocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
        thread.start()
        with socket.create_connection(sock.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert over.wait(60)
        server.should_exit = True
        thread.join()
