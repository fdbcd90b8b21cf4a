"""What is closest to code.openxlab.org.cn: git's own HTTP backend behind lighttpd, LFS by giftless, with accounts.

One address for both, as there. giftless lives in an environment of its own: it wants an old PyJWT.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import plain_http
import platformdirs
from ports import free_port

USER, TOKEN = "me", "w0rd-that-may-write"
BACKEND = Path("/usr/lib/git-core/git-http-backend")
GIFTLESS = """
giftless==0.6.2 flask flask-marshmallow flask-classful webargs marshmallow pyjwt<2.10 cachetools figcan python-dotenv
pyyaml typing_extensions boto3 requests importlib-metadata cryptography google-cloud-storage azure-storage-blob werkzeug
""".split()

SERVE = """
import sys, warnings
warnings.simplefilter("ignore")
from giftless.app import init_app
from giftless.auth import authentication
app = init_app(additional_config={
    "LEGACY_ENDPOINTS": False,
    "AUTH_PROVIDERS": ["giftless.auth.allow_anon:read_write"],
    "TRANSFER_ADAPTERS": {"basic": {"options": {"storage_options": {"path": sys.argv[2]}}}},
})
# Two first requests at once make them both, and one of them gives an address that nobody may write to.
with app.app_context():
    authentication.init_authenticators()
app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
"""

LIGHTTPD = """
server.modules = ("mod_auth", "mod_authn_file", "mod_alias", "mod_cgi", "mod_proxy", "mod_setenv")
server.document-root = "{root}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{root}/lighttpd.log"
server.upload-dirs = ("{root}")
# giftless knows no ranges; lighttpd would cut them out of what it hands on, and ends the connection before they come.
server.range-requests = "disable"
auth.backend = "plain"
auth.backend.plain.userfile = "{root}/users"
$HTTP["url"] !~ "/objects/storage/" {{
    auth.require = ("/" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))
}}
$HTTP["url"] =~ "/info/lfs/|/objects/storage/" {{
    proxy.server = ("" => (("host" => "127.0.0.1", "port" => {lfs_port})))
}}
else $HTTP["url"] =~ "^/me/" {{
    alias.url = ("/me" => "{backend}")
    cgi.assign = ("" => "")
    setenv.set-environment = ("GIT_PROJECT_ROOT" => "{root}/git/me", "GIT_HTTP_EXPORT_ALL" => "1")
}}
"""


@dataclass
class Giftless:
    root: Path
    port: int
    lfs_port: int
    process: subprocess.Popen[bytes] | None = None
    front: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def create(self, name: str) -> Path:
        place = self.root / "git" / "me" / f"{name}.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(place)], check=True)
        for setting in ("http.receivepack", "uploadpack.allowFilter"):
            subprocess.run(["git", "-C", str(place), "config", setting, "true"], check=True)
        return place

    def start_lfs(self) -> None:
        command = [str(_python()), "-c", SERVE, str(self.lfs_port), str(self.root / "lfs")]
        with (self.root / "giftless.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.root)
        _wait(f"http://127.0.0.1:{self.lfs_port}/")

    def stop_lfs(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start git's side and LFS's."""
        with (self.root / "lighttpd.out").open("ab") as out:
            command = ["lighttpd", "-D", "-f", str(self.root / "lighttpd.conf")]
            self.front = subprocess.Popen(command, stdout=out, stderr=out)
        self.start_lfs()
        _wait(self.url)

    def stop(self) -> None:
        assert self.front is not None
        self.front.kill()
        self.front.wait()
        self.stop_lfs()

    @property
    def stored(self) -> set[str]:
        """The LFS objects that are there."""
        return {path.name for path in self.files}

    @property
    def files(self) -> list[Path]:
        """Where they are."""
        return [path for path in (self.root / "lfs").rglob("*") if path.is_file()]

    @property
    def puts(self) -> list[str]:
        """The objects that were sent, in their order, one line each in giftless's log."""
        lines = (self.root / "giftless.log").read_text(errors="replace").splitlines()
        return [line.split('"PUT ')[1].split()[0].rpartition("/")[2] for line in lines if '"PUT ' in line]


def is_here() -> bool:
    return BACKEND.is_file() and bool(shutil.which("lighttpd")) and bool(shutil.which("git-lfs"))


@contextlib.contextmanager
def giftless_server(root: Path) -> Iterator[Giftless]:
    root.mkdir()
    (root / "users").write_text(f"{USER}:{TOKEN}\n")
    server = Giftless(root, free_port(), free_port())
    config = root / "lighttpd.conf"
    config.write_text(LIGHTTPD.format(root=root, port=server.port, lfs_port=server.lfs_port, backend=BACKEND))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(httpx.TransportError):
            plain_http.get(url)
            return
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.1)


def _python() -> Path:
    """The Python of giftless's environment, made on the first run."""
    version = ".".join(map(str, sys.version_info[:2]))
    place = platformdirs.user_cache_path("deploytk-tests") / f"giftless-python{version}"
    python = place / "bin" / "python"
    if not (place / ".complete").is_file():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, *GIFTLESS], check=True, env={**os.environ, "PIP_NO_INPUT": "1"}, timeout=500)
        (place / ".complete").touch()
    return python
