"""What pyproject.toml cannot say: the compiled core is optional.

Without a compiler, redset installs as pure Python. Two variables change that:

REDSET_REQUIRE_EXTENSIONS=1   a core that does not build fails the build
REDSET_NO_EXTENSIONS=1        no core is built; the wheel is py3-none-any
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCE = "redset/_speedups.pyx"


def is_set(variable):
    return os.environ.get(variable, "") not in ("", "0")


def has_cython():
    try:
        import Cython.Compiler.Main  # noqa: F401
    except ImportError:
        return False
    return True


def extensions():
    """The compiled core, or nothing where it cannot or shall not be built."""
    required = is_set("REDSET_REQUIRE_EXTENSIONS")
    if is_set("REDSET_NO_EXTENSIONS"):
        if required:
            raise SystemExit("REDSET_NO_EXTENSIONS contradicts REDSET_REQUIRE_EXTENSIONS")
        return []
    for lacks, what in (
        (not Path(SOURCE).is_file(), SOURCE),
        (not has_cython(), "Cython"),
        (sys.implementation.name != "cpython", "CPython"),
    ):
        if lacks and required:
            raise SystemExit(f"REDSET_REQUIRE_EXTENSIONS is set, and {what} is missing")
        if lacks:
            return []
    # Not cythonize(): it drops `optional`.
    return [
        Extension(
            "redset._speedups",
            [SOURCE],
            depends=pieces(),
            # The generated C is elsewhere, and includes headers as the source names them.
            include_dirs=["redset"],
            optional=not required,
        )
    ]


def pieces():
    """Return what the source includes: the core is built again if one of these changes."""
    found = (path for kind in ("pxi", "pxd", "h") for path in Path("redset").rglob(f"*.{kind}"))
    return sorted(path.as_posix() for path in found)


class BuildExt(build_ext):
    """Keeps the generated C out of the source tree."""

    def initialize_options(self):
        super().initialize_options()
        self.cython_c_in_temp = True


class BdistWheel(bdist_wheel):
    """Tags the wheel for every platform when the core could not be built.

    pip caches wheels: one of pure Python that bears a platform's name would hide the
    compiled one after a compiler was installed.
    """

    def run(self):
        if self.distribution.has_ext_modules():
            self.run_command("build_ext")
            built = self.get_finalized_command("build_ext")
            if not any(Path(output).is_file() for output in built.get_outputs()):
                self.distribution.ext_modules = []
                self.root_is_pure = True
        super().run()


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel},
)
