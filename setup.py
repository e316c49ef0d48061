"""Compiles the CPU scan into what is installed; everything else is in pyproject.toml.

- A wheel brings the library where a C compiler is there when it is built, and is then one of its platform. Without a
  compiler it is a wheel for any platform, and the first scan compiles (ssp/scan/build.py).
- An editable install (`pip install -e .`) gets the library beside the sources.
"""

import runpy
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

SCAN = Path(__file__).parent / "ssp" / "scan"
scan = runpy.run_path(str(SCAN / "build.py"))  # by its path: importing `ssp` needs more than a build environment holds


class BuildWithScan(build_py):
    """Copies the modules, and compiles the scan beside them."""

    def run(self) -> None:
        """Start from an empty folder, as modules that were removed since the last build would be packed too."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        try:
            scan["build"](SCAN if self.editable_mode else Path(self.build_lib).resolve() / "ssp" / "scan")
        except scan["BuildError"] as error:
            print(f"warning: the CPU scan is not compiled; its first use will try again: {error}", file=sys.stderr)


class Compiled(Distribution):
    """What a C compiler makes part of belongs to one platform."""

    def has_ext_modules(self) -> bool:
        """Whether there is a compiler."""
        try:
            return bool(scan["compiler"]())
        except scan["BuildError"]:
            return False


class AnyPython(bdist_wheel):
    """The library depends on system and processor, and on no version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Tag of the wheel's name."""
        return ("py3", "none", super().get_tag()[2])


setup(distclass=Compiled, cmdclass={"build_py": BuildWithScan, "bdist_wheel": AnyPython})
