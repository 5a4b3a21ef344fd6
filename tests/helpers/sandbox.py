"""A container without a container runtime: the program that `helpers.pod` starts in namespaces of its own.

It builds the root file system, brings up the loopback interface, relays what the container may reach, and
runs the command in there. It knows the standard library only.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def build_root(root: Path, image: Path, binds: list[list[Any]], files: dict[str, str]) -> None:
    """A read-only root of the machine's programs, the image, what `binds` brings in, and `files`.

    Args:
        root: an empty directory.
        image: what else is in it.
        binds: directory here, directory in the container, writable.
        files: path in the container -> text.
    """
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", root)
    shutil.copytree(image, root, dirs_exist_ok=True)
    for name in ("usr", "bin", "sbin", "lib", "lib64"):
        source = Path("/", name)
        if source.is_symlink():
            (root / name).symlink_to(source.readlink())
        elif source.is_dir():
            binds = [[str(source), str(source), False], *binds]
    for source, target, writable in [*binds, ["/proc", "/proc", True], ["/dev", "/dev", True]]:
        place = root / target.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        mount("--rbind", source, place)
        if not writable:
            mount("-o", "remount,bind,ro", place)
    for name, text in files.items():
        place = root / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    mount("-o", "remount,ro", root)


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))


async def relay(listen: str | list[Any], target: str | list[Any], **options: Any) -> asyncio.Server:
    """Carry connections from `listen` to `target`; each is a host and port, or the path of a socket."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(target, str):
                far = await asyncio.open_unix_connection(target)
            else:
                far = await asyncio.open_connection(*target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far[1]), pump(far[0], writer))

    if isinstance(listen, str):
        return await asyncio.start_unix_server(carry, listen, **options)
    return await asyncio.start_server(carry, *listen, **options)


def serve(pairs: list[list[Any]]) -> None:
    """Relay in a thread of its own; returns when all listen."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    for listen, target in pairs:
        asyncio.run_coroutine_threadsafe(relay(listen, target), loop).result(10)


def main() -> int:
    plan = json.loads(sys.argv[1])
    socket.sethostname(plan["hostname"])
    raise_loopback()
    serve(plan["relays"])
    build_root(Path(plan["root"]), Path(plan["image"]), plan["binds"], plan["files"])
    account = [f"--userspec={plan['user']}:{plan['group']}", "--groups="] if plan["user"] is not None else []
    environment = [f"{name}={value}" for name, value in plan["environment"].items()]
    inside = ["/usr/bin/env", "-i", f"--chdir={plan['directory']}", *environment, *plan["command"]]
    process = subprocess.Popen(["chroot", *account, plan["root"], *inside])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.send_signal(signal.SIGTERM))
    signal.signal(signal.SIGUSR1, lambda *_: process.kill())  # as a lost node or the kernel ends it
    return process.wait()


if __name__ == "__main__":
    os._exit(main())
