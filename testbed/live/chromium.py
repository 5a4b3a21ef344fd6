"""A headless Chromium and its driver, without root: found or unpacked from Debian's packages.

python -m testbed.live.chromium --install
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from deepscaler.errors import ClusterError
from testbed.live.debian import UNPACKED, install_command, unpack_with_needed

PACKAGES = ("chromium", "chromium-driver")
DIRECTORY = UNPACKED / "chromium"
"""A folder of its own: beside the programs it holds the libraries that the machine lacks."""


@dataclass(frozen=True)
class Chromium:
    """The two programs.

    Attributes:
        browser: the browser itself, not Debian's starting script.
        driver: what a WebDriver client starts.
        libraries: folders with the shared libraries that came with them.
    """

    browser: Path
    driver: Path
    libraries: tuple[Path, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """The environment to start the driver in; the browser inherits it."""
        paths = [*map(str, self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(path for path in paths if path)}


def find() -> Chromium | None:
    """Both programs: on PATH, else unpacked under `.cache/debian/chromium`; None where one is missing."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser and driver:
        return Chromium(Path(browser), Path(driver))
    libraries = {path.parent for path in DIRECTORY.rglob("*.so*")}
    unpacked = Chromium(
        DIRECTORY / "usr" / "lib" / "chromium" / "chromium",
        DIRECTORY / "usr" / "bin" / "chromedriver",
        tuple(sorted(libraries)),
    )
    usable = all(os.access(program, os.X_OK) for program in (unpacked.browser, unpacked.driver))
    return unpacked if usable else None


def install() -> Chromium:
    """Both programs; where one is missing, Debian's packages are unpacked under `.cache/debian/chromium`.

    Raises:
        ClusterError: no apt-get here, or it can't reach the packages.
    """
    present = find()
    if present is None:
        unpack_with_needed("Chromium", PACKAGES, DIRECTORY)
        present = find()
    if present is None:
        raise ClusterError(f"{DIRECTORY}: the packages {' and '.join(PACKAGES)} hold no browser or no driver")
    return present


def main(argv: list[str] | None = None) -> int:
    """Unpack Chromium and its driver where they aren't there yet, and print the browser's path."""
    return install_command(argv, main.__doc__, lambda: install().browser, "chromium")


if __name__ == "__main__":
    raise SystemExit(main())
