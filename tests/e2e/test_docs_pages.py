"""The built docs in a browser: nothing is wider than the screen, and all text can be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browsing import Tab, browsing

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "docs" / "_site"
SCREENS = [(1280, 900), (390, 844)]
SCHEMES = ["light", "dark"]

_CHECK = """
(() => {
  const channel = (value) => {
    value /= 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const over = (front, back) => {
    const alpha = front[3] / 255;
    return [0, 1, 2].map((n) => front[n] * alpha + back[n] * (1 - alpha));
  };
  const luminance = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const behind = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      layers.push(rgba(getComputedStyle(each).backgroundColor));
    }
    let color = [255, 255, 255];
    for (const layer of layers.reverse()) color = over(layer, color);
    return color;
  };
  const faint = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("script, style, [hidden], .headerlink, svg")) continue;
    if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const front = over(rgba(style.color), back);
    const [a, b] = [luminance(front), luminance(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      const where = element.tagName + "." + element.className + " " + ratio.toFixed(2);
      faint.set(where, node.data.trim().slice(0, 30));
    }
  }
  return {
    excess: document.documentElement.scrollWidth - window.innerWidth,
    faint: [...faint].map((pair) => pair.join(": ")),
    broken: [...document.images].filter((i) => i.complete && !i.naturalWidth).map((i) => i.src),
  };
})()
"""


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    """Build the docs, and return their pages."""
    program = Path(sys.executable).with_name("zensical")
    config = ROOT / "docs" / "zensical.toml"
    command = [str(program), "build", "--strict", "--clean", "-f", str(config)]
    subprocess.run(command, check=True, capture_output=True)
    # The page of a missing address names its files from the root of a host.
    return [page for page in sorted(SITE.rglob("*.html")) if page.name != "404.html"]


async def show(tab: Tab, size: tuple[int, int], scheme: str) -> None:
    """Have the tab a size, and a system that prefers light or dark."""
    width, height = size
    await tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 500,
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    await tab.call("Emulation.setEmulatedMedia", features=[feature])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SCREENS, ids=["wide", "phone"])
async def test_every_page_fits_its_screen_and_can_be_read(
    tmp_path: Path, pages: list[Path], size: tuple[int, int], scheme: str
) -> None:
    """No page scrolls sideways, no picture is missing, text has the contrast of WCAG AA."""
    wrong: dict[str, Any] = {}
    async with browsing(tmp_path) as tab:
        await show(tab, size, scheme)
        for page in pages:
            await tab.open(page.as_uri())
            found = await tab.value(_CHECK)
            if found["excess"] > 0 or found["faint"] or found["broken"]:
                wrong[str(page.relative_to(SITE))] = found

    assert len(pages) > 30
    assert wrong == {}
