"""Requests per CPU-second of the generator's FastHttpUser beside a plain HttpUser: python sendFlow/bench.py

Each kind runs Online Boutique's tasks without waits in a process of its own against a small server on
loopback; what is divided by is the CPU time of that process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("FastHttpUser", "HttpUser")
BODY = b"<!doctype html><title>bench</title>\n" + b"x" * 4000


def build_parser() -> argparse.ArgumentParser:
    """Flags of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each kind (default: %(default)g)")
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="each kind is measured this often, in turn")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--host", help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure both kinds in turn and print a line each."""
    given = build_parser().parse_args(argv)
    if given.kind:
        print(json.dumps(measure(given.kind, given.host, given.users, given.seconds)))
        return 0
    asyncio.run(compare(given.seconds, given.users, given.rounds))
    return 0


async def compare(seconds: float, users: int, rounds: int) -> None:
    """Serve in this process, load from another."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            arguments = ["--kind", kind, "--host", host, "--seconds", str(seconds), "--users", str(users)]
            process = await asyncio.create_subprocess_exec(
                sys.executable, __file__, *arguments, stdout=subprocess.PIPE
            )
            out, _ = await asyncio.wait_for(process.communicate(), seconds + 60)
            found = json.loads(out.splitlines()[-1])
            rates[kind].append(found["requests"] / found["cpu_seconds"])
            print(
                f"{kind}: {found['requests']} requests, {found['failures']} failed, {found['cpu_seconds']:.2f} CPU-seconds"
            )
    fast, plain = (max(rates[kind]) for kind in KINDS)
    print(
        f"best of {rounds}: {KINDS[0]} {fast:,.0f}, {KINDS[1]} {plain:,.0f} requests per CPU-second: {fast / plain:.1f} times"
    )
    server.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A page for every GET, a redirect to /cart for every other request."""
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
    moved = b"HTTP/1.1 302 Found\r\nLocation: /cart\r\nContent-Length: 0\r\n\r\n"
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                0,
            )
            await reader.readexactly(length)
            writer.write(page if head.startswith(b"GET") else moved)
            await writer.drain()
    writer.close()


def measure(kind: str, host: str, users: int, seconds: float) -> dict[str, float]:
    """Run one kind of user and count requests and this process's CPU time."""
    import gevent
    import locust
    from locust.env import Environment

    from sendFlow.load_generator import BoutiqueTasks

    user = type(
        kind + "s", (BoutiqueTasks, getattr(locust, kind)), {"wait_time": locust.constant(0), "host": host}
    )
    environment = Environment(user_classes=[user], host=host)
    runner = environment.create_local_runner()
    runner.start(users, spawn_rate=users)
    gevent.sleep(1)
    requests, cpu = environment.stats.total.num_requests, time.process_time()
    gevent.sleep(seconds)
    requests, cpu = environment.stats.total.num_requests - requests, time.process_time() - cpu
    runner.quit()
    return {"requests": requests, "failures": environment.stats.total.num_failures, "cpu_seconds": cpu}


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the repository, instead of this directory
    raise SystemExit(main())
