"""Runs containers of a pod's template as processes: with its files, arguments, environment, user and rights.

What stands in for a node: `unshare` for namespaces, the repository's files for the image that
deploy/Dockerfile makes, relays for the two addresses that the pod may reach, and a certificate made for the
test.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import ROOT, TESTS
from helpers.sandbox import relay

API, BUNDLES = ["127.0.0.1", 443], ["127.0.0.1", 8080]
SECRETS = "/var/run/secrets/kubernetes.io/serviceaccount"
VENV = "/opt/venv"


@cache
def missing() -> str:
    """Why no pod can be run on this machine; "" if one can."""
    for program in ("unshare", "chroot", "mount", "openssl"):
        if shutil.which(program) is None:
            return f"{program} is not on this machine"
    tried = subprocess.run([*unshare(), "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"no namespaces on this machine: {tried.stderr.strip()}"


def unshare() -> list[str]:
    return ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "--net", "--uts"]


def require_pods() -> None:
    """Skip the test where no pod can be run."""
    if missing():
        pytest.skip(missing())


# --------------------------------------------------------------------------------------------------- an image
@dataclass
class Image:
    """What a Dockerfile makes.

    Attributes:
        copies: source below the build's directory -> path in the image.
        environment: its variables.
        directory: where it starts.
        entrypoint: what it starts.
        packages: what it installs of requirements.txt.
    """

    copies: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)

    def read(self, word: str, rest: str) -> None:
        """Note what one instruction of a Dockerfile does."""
        if word == "ENV":
            self.environment |= dict(item.split("=", 1) for item in rest.split())
        elif word == "WORKDIR":
            self.directory = rest
        elif word == "ENTRYPOINT":
            self.entrypoint = json.loads(rest)
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                end = "" if Path(source).suffix == "" else Path(source).name
                place = Path(self.directory, target, end) if target.endswith("/") else Path(target)
                self.copies[source.rstrip("/")] = str(place)
        elif word == "RUN" and "grep -E '^(" in rest:
            self.packages |= set(rest.split("'^(", 1)[1].split(")==", 1)[0].split("|"))


def read_dockerfile(path: Path) -> dict[str, Image]:
    """The stages of a Dockerfile by name, each with what it has of the stage that it begins from."""
    stages: dict[str, Image] = {}
    image, arguments = Image(), dict[str, str]()
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        for name, value in arguments.items():
            rest = rest.replace(f"${{{name}}}", value)
        if word == "ARG":
            arguments |= dict([rest.split("=", 1)])
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            found = stages.get(base, Image())
            image = stages[name or path.stem] = Image(
                dict(found.copies), dict(found.environment), found.directory, [], set(found.packages)
            )
        else:
            image.read(word, rest)
    return stages


def lay_out(image: Image, target: Path, source: Path = ROOT) -> None:
    """Copy what the image holds to below `target`."""
    for name, place in image.copies.items():
        found, end = source / name, target / place.lstrip("/")
        end.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            shutil.copytree(found, end, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(found, end)


# ----------------------------------------------------------------------------------------------------- a node
class Node:
    """Runs containers of one pod template.

    Args:
        directory: an empty one, for the pod's files.
        api: URL of the Kubernetes API.
        prometheus: URL of Prometheus.
        token: of the pod's service account.
    """

    def __init__(self, directory: Path, api: str, prometheus: str, token: str) -> None:
        self.directory, self.token = directory, token
        for name in ("secrets", "sockets", "images"):
            (directory / name).mkdir(parents=True)
        self._loop, self._servers = asyncio.new_event_loop(), list[asyncio.Server]()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays")
        self._thread.start()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._certificate())
        self._serve("api", api, ssl=context)
        self._serve("prometheus", prometheus)

    def _certificate(self) -> tuple[Path, Path]:
        certificate, key = self.directory / "secrets/ca.crt", self.directory / "key.pem"
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=kubernetes",
        ]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
        subprocess.run(command, check=True, capture_output=True)
        return certificate, key

    def serve_bundles(self, url: str) -> str:
        """Let pods reach a server of bundles; returns the URL that it has for them."""
        self._serve("bundles", url)
        return f"http://{BUNDLES[0]}:{BUNDLES[1]}"

    def _serve(self, name: str, url: str, **options: Any) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        work = relay(str(self.directory / "sockets" / name), [host, int(port)], **options)
        self._servers.append(asyncio.run_coroutine_threadsafe(work, self._loop).result(10))

    def close(self) -> None:
        """Stop the relays."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.1)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @contextmanager
    def running(
        self,
        template: Mapping[str, Any],
        container: Mapping[str, Any],
        image: Image,
        volumes: Mapping[str, Path],
        variables: Mapping[str, str],
        *,
        name: str = "deepscaler-0",
        bundle: tuple[Image, Path] | None = None,
    ) -> Iterator[Running]:
        """Start a container, and end it with SIGTERM.

        Args:
            template: `spec` of the pod's template.
            container: one of its containers.
            image: what it is made from.
            volumes: name of a volume -> directory here.
            variables: values of environment variables that come from ConfigMaps.
            name: of the pod.
            bundle: an image that is laid over the other, and the directory that it was built from.
        """
        place = self.directory / f"{name}-{container['name']}"
        for part in ("root", "image"):
            (place / part).mkdir(parents=True)
        lay_out(image, place / "image")
        if bundle is not None:
            lay_out(bundle[0], place / "image", bundle[1])
        own = {
            item["name"]: item.get("value") or variables[item["name"]] for item in container.get("env", ())
        }
        arguments = [self._expanded(text, own) for text in container.get("args", ())]
        relays, host = self._relays(container, name, arguments)
        secure = template["securityContext"]
        user, group = (secure["runAsUser"], secure["runAsGroup"]) if os.geteuid() == 0 else (None, None)
        plan = {
            "hostname": name,
            "relays": relays,
            "root": str(place / "root"),
            "image": str(place / "image"),
            "binds": self._binds(container, volumes, user, group),
            "files": {"/etc/hosts": f"127.0.0.1 localhost {host}\n", "/etc/nsswitch.conf": "hosts: files\n"},
            "user": user,
            "group": group,
            "environment": {
                "PATH": f"{VENV}/bin:/usr/bin:/bin",
                **image.environment,
                **{"KUBERNETES_SERVICE_HOST": API[0], "KUBERNETES_SERVICE_PORT": str(API[1])},
                **own,
            },
            "directory": image.directory,
            "command": [*container.get("command", image.entrypoint), *arguments],
        }
        with (place / "log").open("wb") as log:
            command = [*unshare(), sys.executable, str(TESTS / "helpers/sandbox.py"), json.dumps(plan)]
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        ports = {port["name"]: self._socket(name, port) for port in container.get("ports", ())}
        try:
            yield Running(process, place / "log", ports)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _binds(
        self,
        container: Mapping[str, Any],
        volumes: Mapping[str, Path],
        user: int | None,
        group: int | None,
    ) -> list[list[Any]]:
        """What is mounted: Python and its packages, the account's token, the volumes."""
        (self.directory / "secrets/token").write_text(self.token)
        binds: list[list[Any]] = [
            [sys.prefix, VENV, False],
            [str(self.directory / "secrets"), SECRETS, False],
        ]
        if not sys.base_prefix.startswith("/usr"):
            binds += [[sys.base_prefix, sys.base_prefix, False]]
        for mounted in container.get("volumeMounts", ()):
            source = volumes[mounted["name"]]
            if user is not None and group is not None:
                shutil.chown(source, user, group)
            binds += [[str(source), mounted["mountPath"], not mounted.get("readOnly", False)]]
        return binds

    def _relays(
        self, container: Mapping[str, Any], name: str, arguments: list[str]
    ) -> tuple[list[list[Any]], str]:
        """What the container may reach and what reaches it; and the name that Prometheus has for it."""
        sockets = self.directory / "sockets"
        url = next((text.split("//")[1] for text in arguments if "prometheus.url=" in text), "none:9090")
        host, _, port = url.partition(":")
        relays: list[list[Any]] = [
            [API, str(sockets / "api")],
            [["127.0.0.1", int(port)], str(sockets / "prometheus")],
        ]
        if (sockets / "bundles").exists():
            relays += [[BUNDLES, str(sockets / "bundles")]]
        for item in container.get("ports", ()):
            relays += [[str(self._socket(name, item)), ["127.0.0.1", item["containerPort"]]]]
        return relays, host

    def _socket(self, pod: str, port: Mapping[str, Any]) -> Path:
        return self.directory / "sockets" / f"{pod}-{port['name']}"

    @staticmethod
    def _expanded(text: str, variables: Mapping[str, str]) -> str:
        """`$(NAME)` in arguments stands for a variable."""
        for name, value in variables.items():
            text = text.replace(f"$({name})", value)
        return text


@dataclass
class Running:
    """A container that runs.

    Attributes:
        process: its sandbox.
        log: what it wrote.
        ports: by name, the sockets that lead to them.
    """

    process: subprocess.Popen[bytes]
    log: Path
    ports: dict[str, Path]

    def get(self, port: str, path: str) -> tuple[int, str]:
        """Status and text of a page, as a probe of the kubelet gets them; 0 where nothing answers."""
        connection = HTTPConnection("pod", timeout=5)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(5)
            connection.sock.connect(str(self.ports[port]))
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, HTTPException) as error:  # nothing listens yet
            return 0, str(error)
        finally:
            connection.close()

    def kill(self) -> None:
        """End what runs in it with SIGKILL, as a lost node or the kernel would."""
        self.process.send_signal(signal.SIGUSR1)
        self.process.wait(30)

    def await_probe(self, container: Mapping[str, Any], name: str = "startupProbe") -> None:
        """Ask as the kubelet would, until the answer is good.

        Raises:
            AssertionError: it isn't in time, or the process ended.
        """
        probe = container[name]
        end = time.monotonic() + probe["periodSeconds"] * probe.get("failureThreshold", 3)
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            if self.get(probe["httpGet"]["port"], probe["httpGet"]["path"])[0] == 200:
                return
            time.sleep(0.2)
        raise AssertionError(f"{name} failed, exit {self.process.poll()}:\n{self.log.read_text()}")
