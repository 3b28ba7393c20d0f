"""The peers of redset, each installed into an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ENVIRONMENTS = Path(__file__).resolve().parent.parent / ".bench"


class Missing(Exception):
    """A peer that cannot be installed here; its text has the reason."""


_FAILED: dict[str, Missing] = {}


@dataclass(frozen=True)
class Environment:
    """A virtual environment under ``.bench``; without requirements the one that runs this."""

    name: str
    requirements: tuple[str, ...] = ()
    #: The packages whose versions belong to a result.
    packages: tuple[str, ...] = ()

    def python(self) -> str:
        """Return its Python. The environment is made if it is missing or has other packages."""
        if not self.requirements:
            return sys.executable
        if self.name in _FAILED:  # asking again takes as long, and has the same result
            raise _FAILED[self.name]
        try:
            return self._made()
        except Missing as missing:
            _FAILED[self.name] = missing
            raise

    def _made(self) -> str:
        place = ENVIRONMENTS / f"{self.name}-{sys.version_info[0]}.{sys.version_info[1]}"
        python, stamp = place / "bin" / "python", place / "installed.txt"
        wanted = "\n".join(self.requirements)
        if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
            print(f"installing {self.name}: {', '.join(self.requirements)}", file=sys.stderr)
            try:
                venv.create(place, with_pip=True, clear=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise Missing(f"{self.name}: no virtual environment ({error})") from None
            self._install(str(python))
            stamp.write_text(wanted)
        return str(python)

    def _install(self, python: str) -> None:
        command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        done = subprocess.run([*command, *self.requirements], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise Missing(f"{self.name}: pip install failed: {said[-1] if said else '?'}")


@dataclass(frozen=True)
class Peer:
    """The code that runs: a module of `worker` in an environment."""

    name: str
    environment: Environment
    module: str
    variables: Mapping[str, str] = field(default_factory=dict)


_TREE = Environment("redset", (), ("redset", "redis", "hiredis", "orjson"))
_REDIS_PY = Environment(
    "redis-py",
    ("redis>=5", "hiredis>=3.2", "orjson>=3.11.7"),
    ("redis", "hiredis", "orjson"),
)
_REDSET_051 = Environment(
    "redset-0.5.1",
    # redis-py 2.10 imports distutils, which setuptools brings if Python no longer does.
    ("redset==0.5.1", "redis>=2.10,<2.11", "orjson", "setuptools<81; python_version >= '3.12'"),
    ("redset", "redis", "orjson"),
)
_SCRAPY = Environment(
    "scrapy-redis",
    ("scrapy", "scrapy-redis", "hiredis>=3.2"),
    ("scrapy", "scrapy-redis", "redis", "hiredis"),
)
_GLIDE = Environment(
    "valkey-glide", ("valkey-glide-sync", "orjson"), ("valkey-glide-sync", "orjson")
)


def _queue(name: str) -> Environment:
    """Job systems want other versions of redis-py than each other."""
    # SAQ imports typing_extensions without saying so.
    wanted = (name, "redis", "hiredis>=3.2", "typing_extensions")
    return Environment(name, wanted, (name, "redis", "hiredis"))


REDSET = Peer("redset", _TREE, "with_redset")
FALLBACK = Peer("redset (fallback)", _TREE, "with_redset", {"REDSET_NO_EXTENSIONS": "1"})
ASYNCIO = Peer("redset (asyncio)", _TREE, "with_redset")
#: The contenders that a missed goal profiles.
OURS = (REDSET, FALLBACK, ASYNCIO)
REDIS_PY = Peer("redis-py", _REDIS_PY, "with_redis_py")
REDSET_051 = Peer("redset 0.5.1", _REDSET_051, "with_redset_051")
SCRAPY = Peer("scrapy-redis", _SCRAPY, "with_scrapy")
GLIDE = Peer("valkey-glide-sync", _GLIDE, "with_glide")
SOCKET = Peer("raw socket", _TREE, "with_socket")
JOBS = tuple(
    Peer(name, _queue(name.lower()), f"with_{name.lower()}")
    for name in ("rq", "SAQ", "arq", "huey", "BullMQ")
)
#: The standard library's part in a comparison.
STANDARD = Peer("hashlib", _TREE, "with_redset")

ENVIRONMENTS_USED = (
    *(_TREE, _REDIS_PY, _REDSET_051, _SCRAPY, _GLIDE),
    *(peer.environment for peer in JOBS),
)
