"""The least that any client can do: ``python -m enginebench.measure.bare_client PORT STREAMS TOKENS``.

Asks the truth server for STREAMS answers at once, reads them with epoll and ``recv``, and throws every byte away. It is
the yardstick of the real client's speed: no stamps, no framing, nothing kept. Prints ``{tokens_per_s, cpu_s}``.
"""

import json
import select
import socket
import sys
import time

from enginebench.measure.truth_server import MODEL

_READ_BYTES = 65_536
_END = b"\r\n0\r\n\r\n"


def read_streams(port: int, streams: int, tokens: int) -> float:
    """Read ``streams`` answers of ``tokens`` tokens to their ends; return how long that took, in seconds."""
    epoll = select.epoll()
    sockets = {}
    for _ in range(streams):
        client = socket.create_connection(("127.0.0.1", port))
        client.setblocking(False)
        sockets[client.fileno()] = client
        epoll.register(client, select.EPOLLIN)
    started_s = time.monotonic()
    for key, client in enumerate(sockets.values()):
        client.send(_request(key, tokens))
    while sockets:
        for descriptor, _ in epoll.poll():
            data = sockets[descriptor].recv(_READ_BYTES)
            if not data or data.endswith(_END):
                sockets.pop(descriptor).close()
    return time.monotonic() - started_s


def _request(key: int, tokens: int) -> bytes:
    body = json.dumps({"input_ids": [key], "request_output_len": tokens, "streaming": True}).encode()
    head = f"POST /v2/models/{MODEL}/generate_stream HTTP/1.1\r\nHost: truth\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main() -> None:
    """Read, and print the figures."""
    port, streams, tokens = map(int, sys.argv[1:])
    cpu_s = time.process_time()
    took_s = read_streams(port, streams, tokens)
    print(json.dumps({"tokens_per_s": streams * tokens / took_s, "cpu_s": time.process_time() - cpu_s}))


if __name__ == "__main__":
    main()
