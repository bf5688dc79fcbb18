"""Runs real load balancers, with the configurations of ``docs/deploying.md``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from local.ports import free_port
from local.processes import die_with_parent
from tests.support.node_process import NodeProcess
from tests.support.waiting import until

from .page import NODES, PORT, blocks, replaced

#: Which blocks of the page configure a load balancer: name -> (heading, language).
SECTIONS = {
    "nginx": ("nginx", "nginx"),
    "haproxy": ("HAProxy", "haproxy"),
    "caddy": ("Caddy", "caddyfile"),
    "traefik": ("Traefik", "yaml"),
}
#: What nginx gets besides: its files are in the folder of the test.
NGINX_FILES = """
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
"""


def find_program(name: str) -> str | None:
    """Returns the path of a program: on the PATH, in Debian's folder of servers, or beside this Python."""
    return shutil.which(name, path=os.pathsep.join((os.environ["PATH"], "/usr/sbin", str(Path(sys.executable).parent))))


class Balancer:
    """A load balancer in front of nodes, in its own process.

    :param name: one of :data:`SECTIONS`.
    :param nodes: as many as the page has addresses.
    :param folder: for its files; what it logs is in ``log`` there.
    """

    def __init__(self, name: str, nodes: Sequence[NodeProcess], folder: Path) -> None:
        self.name = name
        self.nodes = nodes
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> Balancer:
        """Starts the process, and waits until a node answers through it."""
        program = find_program(self.name)
        assert program is not None
        environ = {**os.environ, "CADDY_ADMIN": f"127.0.0.1:{free_port()}"}
        environ |= {"XDG_CONFIG_HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, *self._arguments()],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
                stdout=log,
                stderr=log,
            )
        await until(self._up, lambda: f"{self.name} is up:\n{self.log()}")
        return self

    def _arguments(self) -> list[str]:
        """Writes the configuration, and returns the command-line arguments."""
        addresses = dict(zip(NODES, (f"127.0.0.1:{node.port}" for node in self.nodes), strict=True))
        texts = blocks(*SECTIONS[self.name])
        if self.name == "traefik":
            static, dynamic = texts
            nodes = self._write("nodes.yml", dynamic, addresses)
            traefik = self._write("traefik.yml", static, {PORT: str(self.port), "/etc/traefik/nodes.yml": str(nodes)})
            return [f"--configFile={traefik}"]
        (text,) = texts
        more = {"http {\n": "http {\n" + NGINX_FILES} if self.name == "nginx" else {}
        config = self._write("config", text, addresses | {PORT: str(self.port)} | more)
        if self.name == "nginx":
            user = "user root; " if os.getuid() == 0 else ""  # whoever may read the folder of the test
            globals_ = f"{user}daemon off; pid {self.folder}/pid;"
            return ["-p", str(self.folder), "-c", str(config), "-e", "stderr", "-g", globals_]
        if self.name == "haproxy":
            return ["-db", "-f", str(config)]
        return ["run", "--config", str(config), "--adapter", "caddyfile"]

    def _write(self, name: str, text: str, replacements: Mapping[str, str]) -> Path:
        path = self.folder / name
        path.write_text(replaced(text, dict(replacements)))
        return path

    async def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended:\n{self.log()}"
        try:
            async with aiohttp.ClientSession() as http, http.get(self.url + "/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    def log(self) -> str:
        """Returns everything that the process has logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """Stops the process, and its workers with it."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
