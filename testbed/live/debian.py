"""Programs of Debian's packages, unpacked under `.cache/` without root; no service is started."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepscaler.artefacts import one_line
from deepscaler.errors import ClusterError, DeepScalerError

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / ".cache" / "debian"
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Package:
    """A package and the programs that are taken from it; the first is the server.

    Attributes:
        name: of the package.
        programs: their names.
        title: what people call it.
    """

    name: str
    programs: tuple[str, ...]
    title: str

    def find(self, unpacked: Path) -> Path | None:
        """The server: on PATH, else below `unpacked`; None where there is none."""
        found = shutil.which(self.programs[0])
        if found:
            return Path(found)
        below = unpacked / "usr" / "bin" / self.programs[0]
        return below if os.access(below, os.X_OK) else None

    def install(self, unpacked: Path) -> Path:
        """The server; where there is none, the package is unpacked below `unpacked`.

        Raises:
            ClusterError: no apt-get here, or it can't reach the package.
        """
        present = self.find(unpacked)
        if present:
            return present
        _need_apt(self.title, self.programs[0])
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=unpacked.parent, prefix=f"{self.name}-") as name:
            package = self._download(Path(name))
            _run(["dpkg", "-x", str(package), f"{name}/root"], cwd=name)
            target = unpacked / "usr" / "bin"
            target.mkdir(parents=True, exist_ok=True)
            for program in self.programs:
                os.replace(f"{name}/root/usr/bin/{program}", target / program)
        return target / self.programs[0]

    def _download(self, directory: Path) -> Path:
        """The file of the package."""
        _download([self.name], directory)
        packages = sorted(directory.glob(f"{self.name}_*.deb"))
        if not packages:
            raise ClusterError(f"apt-get download {self.name} left no package")
        return packages[0]


def unpack_with_needed(title: str, packages: Sequence[str], target: Path) -> None:
    """Unpack packages below `target`, with all those that they need and this machine lacks.

    Args:
        title: what people call it.
        packages: names; the first is also that of the program which the message asks for.
        target: appears when all is unpacked; a process killed meanwhile leaves none.

    Raises:
        ClusterError: no apt-get here, or it can't reach a package.
    """
    _need_apt(title, packages[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-") as name:
        directory = Path(name)
        _download(packages, directory, with_needed=True)
        for package in sorted(directory.glob("*.deb")):
            _run(["dpkg", "-x", str(package), f"{name}/root"], cwd=name)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(f"{name}/root", target)


def _need_apt(title: str, program: str) -> None:
    for needed in ("apt-get", "dpkg"):
        if shutil.which(needed) is None:
            raise ClusterError(
                f"{title} can't be unpacked: no {needed} on this machine; put a {program} program on PATH"
            )


def _download(names: Sequence[str], directory: Path, with_needed: bool = False) -> None:
    """Fetch packages; lists that don't know them, or know a version that is gone, are fetched anew first."""
    try:
        _fetch(names, directory, [], with_needed)
    except ClusterError:
        for below in ("lists/partial", "archives/partial"):
            (directory / below).mkdir(parents=True)
        lists = f"Dir::State::lists={directory}/lists"
        own = [lists, f"Dir::Cache={directory}", "APT::Sandbox::User=root"]
        options = [part for option in own for part in ("-o", option)]
        _run(["apt-get", *options, "update"], cwd=directory)
        _fetch(names, directory, options, with_needed)


def _fetch(names: Sequence[str], directory: Path, options: list[str], with_needed: bool) -> None:
    if with_needed:
        asked = ["install", "--simulate", "--no-install-recommends", *names]
        told = _run(["apt-get", *options, *asked], cwd=directory)
        names = sorted({*names, *re.findall(r"^Inst (\S+)", told, flags=re.MULTILINE)})
    _run(["apt-get", *options, "download", *names], cwd=directory)


def _run(command: list[str], cwd: Path | str) -> str:
    """Run a command of apt or dpkg and return what it printed."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{' '.join(command[:1] + command[-2:])}: {error}") from error
    if done.returncode:
        said = one_line((done.stderr or done.stdout)[-300:])
        raise ClusterError(f"{' '.join(command[:1] + command[-2:])} ended with {done.returncode}: {said}")
    return done.stdout


def install_command(
    argv: list[str] | None, description: str | None, install: Callable[[], Path], name: str = ""
) -> int:
    """The command line of a module that installs: `--install` prints the program's path."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--install",
        action="store_true",
        required=True,
        help="download Debian's package and unpack it under .cache/",
    )
    parser.parse_args(argv)
    try:
        print(install())
    except DeepScalerError as error:
        print(f"{name or install.__module__.rpartition('.')[2]}: {error}", file=sys.stderr)
        return 1
    return 0


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, at last by force."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
