"""Writes the README's picture, `docs/images/report.png`, from the demo's report. `make picture` runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "runs/demo/report.html"
PICTURE = ROOT / "docs/images/report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1200, 1600  # down to the end of the plots
COLORS = 128  # plenty for a page, and a third of the size


def screenshot(page: Path, output: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no browser found; install one of: {', '.join(BROWSERS)}")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", *quiet, f"--user-data-dir={profile}"]
        command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={output}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def main() -> None:
    if not REPORT.is_file():
        sys.exit(f"there is no {REPORT}; run: make demo")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    screenshot(REPORT, PICTURE)
    with Image.open(PICTURE) as picture:
        picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"wrote {PICTURE} ({PICTURE.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
