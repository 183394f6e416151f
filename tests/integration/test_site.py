"""The documentation as a site: it builds without a warning, is whole, and asks no other host for anything."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from enzyme_stability import errors
from enzyme_stability.client import Client
from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.config.training import TrainConfig
from enzyme_stability.serving.app import create_app

REPOSITORY = Path(__file__).parents[2]
BENCHMARKS = REPOSITORY / "benchmarks"
FLAGS = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
WIDE_PAGES = ["index.html", "results/index.html", "reference/settings/index.html", "reference/http/index.html"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("ENZYME_STABILITY_NEEDS_CHROMIUM"):
            pytest.fail("Chromium is needed here and is not installed")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=[f"--{flag}" for flag in FLAGS])
        yield started
        started.close()


def text_of(site: Path, page: str) -> str:
    return (site / page).read_text(encoding="utf-8")


def test_every_link_within_the_site_leads_to_a_file(site: Path) -> None:
    broken = []
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#]+)', page.read_text(encoding="utf-8")):
            if page.name == "404.html" or re.match(r"[a-z]+:|//", link):
                continue
            target = (page.parent / link).resolve()
            if not (target.is_file() or (target / "index.html").is_file()):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken


def test_the_home_page_is_the_readme(site: Path) -> None:
    home = text_of(site, "index.html")
    assert "What the numbers mean, and where they end" in home
    assert 'href="usage/"' in home
    assert 'href="repository/CONTRIBUTING/"' in home
    assert "mkdocs.yml" not in home


def test_a_link_to_a_file_beside_the_documents_leads_to_its_text(site: Path) -> None:
    assert 'href="../repository/deploy/monitoring/"' in text_of(site, "monitoring/index.html")
    assert "alerts.yml" in text_of(site, "repository/deploy/monitoring/index.html")
    assert "Permission is hereby granted" in text_of(site, "repository/LICENSE/index.html")


def test_every_setting_is_on_the_page_of_settings(site: Path) -> None:
    page = text_of(site, "reference/settings/index.html")
    classes = [TrainConfig, ServingConfig, *(field.annotation for field in TrainConfig.model_fields.values())]
    for settings in classes:
        for name in getattr(settings, "model_fields", ()):
            assert f"<code>{name}</code>" in page, name
    assert "<code>prot_bert</code>" in page
    assert "number, &gt; 0, &lt; 1" in page


def test_every_route_is_on_the_page_of_the_api(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "", text_of(site, "reference/http/index.html"))
    for path, methods in create_app().openapi()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page


def test_the_public_names_are_on_the_page_of_python(site: Path) -> None:
    page = text_of(site, "reference/python/index.html")
    public = ["Predictor", "Record", "Prediction", "DeltaTmModel", "Variant", "Client"]
    family = [name for name in vars(errors) if name.endswith("Error")]
    for name in [*public, *family]:
        assert re.search(rf'id="enzyme_stability\.[\w.]*\b{name}"', page), name
    for method in (name for name in vars(Client) if not name.startswith("_")):
        assert f'id="enzyme_stability.client.Client.{method}"' in page


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_fit_the_screen_and_ask_no_other_host(browser: Browser, address: str, size: dict[str, int]) -> None:
    page = browser.new_page(viewport=size)
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
    page.on("pageerror", lambda error: failed.append(str(error)))
    for name in WIDE_PAGES:
        page.goto(address + name)
        expect(page.locator("h1")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    assert not failed
    assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()
    page.close()


def test_the_search_finds_a_setting(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport=DESKTOP)
    page.goto(address)
    page.locator(".md-search__input").fill("calibration_share")
    expect(page.locator(".md-search-result__link").first).to_be_visible(timeout=20_000)
    page.close()


@pytest.mark.parametrize("script", ["results_page.py", "architecture_figure.py"])
def test_what_a_script_wrote_is_what_it_writes_now(script: str) -> None:
    done = subprocess.run([sys.executable, BENCHMARKS / script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
