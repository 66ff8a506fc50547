"""A browser for tests: Debian's Chromium, headless; it opens pages from disk without a network, or those of a server on this machine."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
OFFLINE = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}


@contextmanager
def opened(downloads: Path, *, offline: bool = True) -> Iterator[webdriver.Chrome]:
    """Yield a browser without a network, or with this machine's; downloads go to a folder."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    assert all(programs), "a browser is needed: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, Service(programs[1]))
        try:
            driver.execute_cdp_cmd("Network.enable", {})
            if offline:
                driver.execute_cdp_cmd("Network.emulateNetworkConditions", OFFLINE)
            driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
            yield driver
        finally:
            driver.quit()


def emulate(driver: webdriver.Chrome, *, width: int = 1280, height: int = 900, scheme: str = "light", media: str = "screen") -> None:
    """Set the size, the theme and the medium of the browser."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
