"""What the server costs beside its model: CPU per request, and throughput as a share of in-process batches.

The model sleeps, so all CPU time of the server's process is the server's own. Clients are in a process of their own;
each of them sends its next request when it has the reply to the last.

python bench/serving.py [--num 640] [--clients 64] [--picture-ms 50] [--size-px 96] [--repeats 3]
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from unigap.models.protocol import DrawOutput, Request, Sampling
from unigap.server.app import ServerConfig, serve

BATCH = 16


class Sleeper:
    """Draws a batch in one sleep, as an accelerator does."""

    name, sha256, pictures, batch_size, sampling = "sleeper", "0" * 64, "photo", BATCH, Sampling()
    abilities, trained_on = frozenset({"draw"}), {}

    def __init__(self, picture_s: float, size_px: int) -> None:
        self._picture_s = picture_s
        rng = np.random.default_rng(0)
        # Noise: the most bytes that a picture of this size can take.
        self._picture = Image.fromarray(rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8))

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        time.sleep(self._picture_s * len(requests))
        return [DrawOutput(image=self._picture) for _ in requests]


def run_server(picture_s: float, size_px: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    serve(Sleeper(picture_s, size_px), ServerConfig(), listener)  # type: ignore[arg-type]
    print(time.process_time(), flush=True)


def ask(port: int, num: int) -> None:
    """One client: `num` requests, one after the other, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body: dict[str, Any] = {"model": "sleeper", "modalities": ["image"]}
    body["messages"] = [{"role": "user", "content": "Draw a picture of " + "many things " * 20}]
    for seed in range(num):
        text = json.dumps(body | {"seed": seed})
        connection.request("POST", "/v1/chat/completions", text, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        data = reply.read()
        assert reply.status == 200, data[:300]
    connection.close()


def measure(num: int, clients: int, picture_s: float, size_px: int) -> tuple[float, float]:
    """Server's CPU seconds a request (start-up taken off), and requests a second."""
    cpu_s, wall_s = [], 0.0
    for requests in (clients, num + clients):  # the first run gives what start-up and connections cost
        arguments = [sys.executable, __file__, "--serve", f"--picture-ms={picture_s * 1000}", f"--size-px={size_px}"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            start_s = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(clients) as pool:
                list(pool.map(ask, [port] * clients, [requests // clients] * clients))
            wall_s = time.perf_counter() - start_s
            process.terminate()
            cpu_s.append(float(process.stdout.readline()))
    return (cpu_s[1] - cpu_s[0]) / num, (num + clients) / wall_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=640)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--picture-ms", type=float, default=50.0)
    parser.add_argument("--size-px", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", action="store_true")
    flags = parser.parse_args()
    picture_s = flags.picture_ms / 1000
    if flags.serve:
        run_server(picture_s, flags.size_px)
        return
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    for _ in range(flags.repeats):
        cpu_s, per_s = measure(flags.num, flags.clients, picture_s, flags.size_px)
        share = per_s * picture_s
        print(
            f"{flags.size_px} px, {flags.clients} clients: {cpu_s * 1000:.2f} ms CPU a request; {per_s:.1f} pictures "
            f"a second, {100 * share:.1f}% of in-process ({1 / picture_s:.1f})"
        )
    print(f"load after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
