"""Makes the pictures of docs/screens anew: `python -m tests.browser.screens` starts a studio, a designer."""

from __future__ import annotations

import io
import json
import math
import re
import sys
import tempfile
from pathlib import Path

import httpx
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser import chromium
from tests.browser.portal_screens import furnish, portal_pages, squeeze
from tests.browser.stage import ROOT, Studio, a_checkpoint, studio_up

PLACE = ROOT / "docs" / "screens"
PROMPT = "a red circle on a blue background"
SEED = 7
NETWORKS = (
    ("golden-hour", "light", "Warm light from the side.", "golden hour, long shadows", "sd_v1"),
    ("misty-hills", "places", "Layers of hills in the morning.", "misty hills", "sd_v1"),
    ("ink-wash", "styles", "Grey ink on wet paper.", "ink wash", "sd_v1"),
    ("paper-cut", "styles", "Cut paper, three layers deep.", "paper cut, layered", "sd_v1"),
    ("night-market", "places", "Lanterns and rain.", "night market, lanterns", "sd_v1"),
    ("soft-focus", "light", "An old lens.", "soft focus", "sd_v1"),
    ("linocut", "styles", "Two colours, rough edges.", "linocut print", "sd_v1"),
    ("blue-hour", "light", "", "blue hour", "sd_v1"),
    ("grand-vista", "places", "For the large ones.", "vista", "sdxl_base_v1-0"),
)
"""Name, folder, description, trigger words, base."""


def main() -> int:
    """Start a studio, draw with it in every look, and keep what is to be seen."""
    checkpoint, found = a_checkpoint(), chromium.find(install=True)
    if checkpoint is None or found is None:
        sys.stderr.write("This needs a checkpoint (make demo) and a Chromium.\n")
        return 1
    PLACE.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        studio_up(Path(place), checkpoint) as studio,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=str(found.path), args=list(chromium.FLAGS), env=found.environment
        )
        designer = studio.designer("ada")
        at_work(browser, studio, designer, "dark")
        at_work(browser, studio, designer, "light")
        plotting(browser, studio, designer, "light")
        on_the_phone(browser, studio, designer)
        with_models(studio)
        for look in ("light", "dark"):
            cards(browser, studio, designer, look)
        furnish(studio)
        for look in ("light", "dark"):
            for width in (1280, 390):
                portal_pages(browser, studio, look, width)
        browser.close()
    squeeze(PLACE)
    for screen in sorted(PLACE.glob("*.png")):
        sys.stdout.write(f"{screen.relative_to(ROOT)} {screen.stat().st_size // 1024} KiB\n")
    return 0


def opened(browser: Browser, studio: Studio, look: str, width: int, height: int) -> Page:
    """A new browser before the studio."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if look == "dark" else "light"
    )
    page = context.new_page()
    page.goto(studio.url + "/")
    return page


def log_in(page: Page, designer: tuple[str, str]) -> None:
    """Through the login page to the form."""
    name, password = designer
    page.locator("[name=username]").fill(name)
    page.locator("[name=password]").fill(password)
    page.keyboard.press("Enter")
    page.locator("#txt2img_gallery").wait_for()
    expect(page.get_by_label("Stable Diffusion checkpoint")).to_have_value(re.compile(r"\["))


def draw(page: Page, **numbers: int) -> None:
    """Fill the form and press Generate."""
    page.locator("#txt2img_prompt textarea").fill(PROMPT)
    for name, value in numbers.items():
        box = page.locator(f"#txt2img_{name} input[type=number]")
        box.fill(str(value))
        box.blur()
    page.locator("#txt2img_generate").click()


def finished(page: Page) -> None:
    """Wait for the picture, with the mouse out of the way."""
    page.locator("body[data-job=idle]").wait_for(timeout=120_000)
    page.locator("#txt2img_picture").wait_for()
    page.mouse.move(5, 5)
    page.wait_for_load_state("networkidle")


def at_work(browser: Browser, studio: Studio, designer: tuple[str, str], look: str) -> None:
    """The login page, the form with a job running, and the finished pictures."""
    page = opened(browser, studio, look, 1280, 960)
    page.screenshot(path=PLACE / f"login-{look}.png")
    log_in(page, designer)
    draw(page, seed=SEED, batch_count=4, steps=60)
    expect(page.locator("#txt2img_preview")).to_be_visible(timeout=60_000)
    expect(page.locator("#txt2img_progress")).to_contain_text("ETA", timeout=60_000)
    page.mouse.move(5, 5)
    page.screenshot(path=PLACE / f"running-{look}.png")
    finished(page)
    page.screenshot(path=PLACE / f"txt2img-{look}.png")
    page.context.close()


def plotting(browser: Browser, studio: Studio, designer: tuple[str, str], look: str) -> None:
    """Hires fix open above, an X/Y/Z plot set up below, and its grid."""
    page = opened(browser, studio, look, 1280, 960)
    log_in(page, designer)
    page.get_by_label("Script", exact=True).click()
    page.get_by_role("option", name="X/Y/Z plot").click()
    plot = "#script_txt2img_xyz_plot"
    page.locator(f"{plot}_x_values textarea").fill("7-10")
    page.locator(f"{plot}_y_type input").click()
    page.get_by_role("option", name="Sampler", exact=True).click()
    page.locator(f"{plot}_y_values_dropdown input").click()
    for name in ("Euler a", "DPM++ 2M SDE", "DDIM"):
        page.locator(f"{plot}_y_values_dropdown").get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")
    draw(page, seed=SEED)
    finished(page)
    page.get_by_label("Hires. fix").check()
    page.mouse.move(5, 5)
    page.evaluate("() => document.activeElement.blur()")
    expect(page.locator("#txt2img_hr_line")).to_contain_text("to 256x256")
    page.screenshot(path=PLACE / f"plot-{look}.png", full_page=True)
    page.context.close()


def on_the_phone(browser: Browser, studio: Studio, designer: tuple[str, str]) -> None:
    """The same at 390 px."""
    page = opened(browser, studio, "dark", 390, 844)
    log_in(page, designer)
    draw(page, seed=SEED)
    finished(page)
    page.screenshot(path=PLACE / "txt2img-390.png", full_page=True)
    page.context.close()


def with_models(studio: Studio) -> None:
    """A few networks with previews, as an administrator keeps them."""
    headers = {"Authorization": f"Bearer {studio.admin}"}
    with httpx.Client(base_url=studio.url, headers=headers, trust_env=False, timeout=60) as client:
        for index, (name, folder, said, words, base) in enumerate(NETWORKS):
            content = network(name, index, base)
            query = {"kind": "lora", "filename": f"{name}.safetensors", "folder": folder}
            made = (
                client.post("/api/v1/models/upload", params=query, content=content).raise_for_status().json()
            )
            notes = {"description": said, "activation_text": words, "preferred_weight": 0.8}
            client.patch(f"/api/v1/models/{made['id']}", json=notes).raise_for_status()
            if index % 4 != 3:
                picture = preview(index)
                client.put(f"/api/v1/models/{made['id']}/preview", content=picture).raise_for_status()


def network(name: str, salt: int, base: str) -> bytes:
    """The smallest file that is a LoRA."""
    size = 4 * 768
    key = "lora_unet_attn2_to_k.lora_down.weight"
    entry = {"dtype": "F32", "shape": [1, 768], "data_offsets": [0, size]}
    metadata = {"ss_output_name": name, "ss_base_model_version": base}
    text = json.dumps({"__metadata__": metadata, key: entry}).encode()
    return len(text).to_bytes(8, "little") + text + bytes([salt]) * size


def preview(index: int) -> bytes:
    """Hills under a sun, in colours of its own."""
    width, height, hue = 400, 600, index * 47 % 360
    picture = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(picture)
    for row in range(height):
        pen.line((0, row, width, row), fill=f"hsl({(hue + row // 8) % 360}, 48%, {72 - row // 20}%)")
    sun = 90 + index * 37 % 200
    pen.ellipse((sun, 110, sun + 120, 230), fill=f"hsl({(hue + 35) % 360}, 85%, 84%)")
    for layer in range(4):
        ridge = [
            (x, 330 + layer * 62 + 34 * math.sin(x / (58 + 9 * layer) + index + 2 * layer))
            for x in range(0, width + 9, 8)
        ]
        shade = f"hsl({(hue + 190 + 12 * layer) % 360}, 34%, {46 - 9 * layer}%)"
        pen.polygon([(0, height), *ridge, (width, height)], fill=shade)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def cards(browser: Browser, studio: Studio, designer: tuple[str, str], look: str) -> None:
    """The cards of LoRAs, two of them in the prompt."""
    page = opened(browser, studio, look, 1280, 900)
    log_in(page, designer)
    page.get_by_role("tab", name="Lora", exact=True).click()
    page.locator(".card").first.wait_for()
    page.locator("#txt2img_prompt textarea").fill("a castle on a hill")
    for name in ("golden-hour", "misty-hills"):
        page.locator(f'.card[data-name="{name}"] .use').click()
    page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
    page.mouse.move(5, 5)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=PLACE / f"cards-{look}.png")
    page.context.close()


if __name__ == "__main__":
    sys.exit(main())
