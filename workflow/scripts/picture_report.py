"""Takes the picture of a report that README.md and the documentation show (docs/index.md has the command).

Needs Chromium (Debian: chromium). The picture is cut off after the figure and kept in 256 colours, as it is in git.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "assets" / "report.png"


def main() -> str | None:
    """Take the picture; returns an error message if there is no browser."""
    parser = argparse.ArgumentParser(description="Take the picture of a report that README.md shows.")
    parser.add_argument("report", type=Path, help="results/<name>/report.html")
    parser.add_argument("--output", type=Path, default=PICTURE, help="the picture (PNG)")
    parser.add_argument("--width", type=int, default=1200, help="pixels of the page")
    parser.add_argument("--height", type=int, default=1280, help="pixels of the page, from its top")
    options = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return "Error: no Chromium (Debian: apt-get install chromium)"
    page = options.report.resolve(strict=True).as_uri()
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "report.png")
        size = f"--window-size={options.width},{options.height}"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]
        command += [f"--user-data-dir={folder}/profile", f"--screenshot={shot}", page]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        Image.open(shot).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(
            options.output, optimize=True
        )
    print(f"Wrote {options.output} ({options.output.stat().st_size // 1024} KB)")
    return None


if __name__ == "__main__":
    sys.exit(main())
