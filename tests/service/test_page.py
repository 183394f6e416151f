"""The web page in a browser, before the real service."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import random
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from enzyme_stability import Predictor
from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.serving.access import create_key
from enzyme_stability.serving.app import create_app
from enzyme_stability.variants.model import DeltaTmModel

LYSOZYME = (
    "MRSLLILVLCFLPLAALGKVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKIVSDG"
    "NGMNAWVAWRNRCKGTDVQAWIRGCRL"
)
REDUCTASE = (
    "MAKVIFVLAMDVSGKIASSVESWSSFEDRKNFRKITTEIGNVVMGRITFEEIGRPLPERLNVVLTRRPKTSNNPSLVFFNGSPADVVKFLEGKGYERVAVIGGKTVFTEFLREKLVDELF"
    "VTVEPYVFGKGIPFFDEFEGYFPLKLLEMRRLNERGTLFLKYSVEKSHR"
)
TWO = f">lysozyme\n{LYSOZYME}\n>reductase from a hot spring\n{REDUCTASE}\n"
FLAGS = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
CONTROLS = {"button", "textbox", "searchbox", "combobox", "spinbutton", "slider", "link", "progressbar", "application"}
LANDMARKS = {"region", "form", "navigation"}
MINUS = "\N{MINUS SIGN}"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
SLOW_MS = 20_000
"""The machine may be busy."""

Open = Callable[..., Page]


@contextmanager
def served(config: ServingConfig) -> Iterator[str]:
    """The service on a free port, for as long as the block lasts; its address."""
    server = uvicorn.Server(uvicorn.Config(create_app(config), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the service has ended"
        assert time.monotonic() < deadline, "the service does not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=30)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service open to everybody, with a database."""
    database = tmp_path_factory.mktemp("service") / "service.db"
    with served(ServingConfig(database=f"sqlite:///{database}", threads=1)) as address:
        yield address


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """API keys, ``often`` without a limit and ``seldom`` with one, and the file they are in."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    return {"file": str(file), "often": create_key(file, "often"), "seldom": create_key(file, "seldom", 30)}


@pytest.fixture(scope="module")
def strict_service(keys: dict[str, str]) -> Iterator[str]:
    """A service that asks for a key, takes little at once and has no database."""
    config = ServingConfig(keys=Path(keys["file"]), threads=1, longest_scan=150, largest_body=2000, most_records=4000)
    with served(config) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        missing = "no Chromium is installed"
        if os.environ.get("ENZYME_STABILITY_NEEDS_CHROMIUM") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=[f"--{flag}" for flag in FLAGS])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open the page of a service; whatever it then writes to the console as an error fails the test."""
    complaints: list[str] = []
    contexts = []

    def visit(address: str, *, refused: bool = False, **context: Any) -> Page:
        contexts.append(browser.new_context(**{"viewport": DESKTOP, **context}))
        page = contexts[-1].new_page()
        page.set_default_timeout(SLOW_MS)

        def hear(message: Any) -> None:
            # Chromium itself reports each answer that is an error, and some tests ask for those.
            if message.type == "error" and not (refused and message.text.startswith("Failed to load resource")):
                complaints.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page: Open, service: str) -> Page:
    return open_page(service)


def predict(page: Page, text: str) -> None:
    field = page.get_by_label("Sequences")
    if len(text) < 10_000:
        field.fill(text)
    else:  # fill() types line by line, minutes long; a paste is quick
        field.evaluate("(field, text) => { field.value = text; }", text)
    page.get_by_role("button", name="Predict").click()


def cells(page: Page, number: int) -> list[str]:
    """Texts of a column of the table, counted from 1."""
    expect(page.locator("#rows tr").first).to_be_visible(timeout=SLOW_MS)
    return page.locator(f"#rows tr > :nth-child({number})").all_inner_texts()


def downloaded(page: Page, button: str) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return list(csv.DictReader(io.StringIO(download.value.path().read_bytes().decode(), newline="")))


def drop(page: Page, name: str, content: bytes) -> None:
    files = page.evaluate_handle(
        """([name, content]) => {
          const files = new DataTransfer();
          files.items.add(new File([Uint8Array.from(atob(content), (byte) => byte.charCodeAt(0))], name));
          return files;
        }""",
        [name, base64.b64encode(content).decode()],
    )
    page.dispatch_event("#question", "drop", {"dataTransfer": files})


def made_up(count: int, length: int) -> str:
    choose = random.Random(5)
    return "".join(f">protein_{k}\n{''.join(choose.choices(AMINO_ACIDS, k=length))}\n" for k in range(1, count + 1))


def overflow(page: Page) -> int:
    """CSS pixels by which the page is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def test_pasted_sequences_get_the_answers_of_the_predictor(page: Page, builtin: Predictor) -> None:
    predict(page, TWO)
    assert cells(page, 2) == ["lysozyme", "reductase"]
    rows = builtin.predict([LYSOZYME, REDUCTASE])
    assert cells(page, 3) == [str(row.length) for row in rows]
    assert cells(page, 4) == [f"{row.tm_celsius:.1f}" for row in rows]
    assert [text.strip() for text in cells(page, 5)] == [
        f"{row.tm_lower_celsius:.1f} to {row.tm_upper_celsius:.1f}" for row in rows
    ]
    expect(page.get_by_role("status").first).to_contain_text("2 proteins, none without an answer")
    expect(page.get_by_role("heading", name="Predictions")).to_be_focused()


def test_the_chosen_coverage_and_growth_temperature_are_those_of_the_answer(page: Page, builtin: Predictor) -> None:
    page.get_by_label("Interval", exact=True).select_option("0.8")
    page.get_by_label("Growth temperature").fill("41")
    predict(page, LYSOZYME)
    (row,) = builtin.predict([LYSOZYME], coverage=0.8, growth_temperature=41)
    assert cells(page, 5)[0].strip() == f"{row.tm_lower_celsius:.1f} to {row.tm_upper_celsius:.1f}"
    expect(page.locator("#columns")).to_contain_text("80\u202f% interval")


def test_a_bad_sequence_says_why_and_the_others_are_answered(page: Page) -> None:
    predict(page, f">bad\nMKV1LLAAGIV\n{TWO}")
    assert cells(page, 7) == ["error", "ok", "ok"]
    assert cells(page, 8)[0] == "'1' at position 4 is not an amino acid"
    expect(page.get_by_role("status").first).to_contain_text("3 proteins, 1 without an answer")


def test_columns_sort_by_keyboard_with_missing_values_last(page: Page) -> None:
    predict(page, f">bad\nMKV1\n{TWO}")
    expect(page.locator("#rows tr")).to_have_count(3)
    head = page.get_by_role("columnheader", name="Tm (°C)")
    button = head.get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "descending")
    falling = cells(page, 4)
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    rising = cells(page, 4)
    assert falling[-1] == rising[-1] == ""
    assert falling[:2] == sorted(falling[:2], key=float, reverse=True) == rising[1::-1]
    expect(button).to_be_focused()
    assert page.locator("[aria-sort]").count() == 1


def test_the_filter_shows_the_rows_that_match(page: Page) -> None:
    predict(page, f">bad\nMKV1\n{TWO}")
    page.get_by_label("Filter").fill("LYSO")
    expect(page.locator("#rows tr")).to_have_count(1)
    expect(page.locator("#filtered")).to_have_text("1 of 3 rows")
    page.get_by_label("Filter").fill("error")
    assert cells(page, 2) == ["bad"]


def test_a_scan_shows_what_the_model_says_of_each_substitution(page: Page) -> None:
    predict(page, TWO)
    page.get_by_role("button", name="Scan the substitutions of lysozyme").click()
    expect(page.locator("#shortlist tr")).to_have_count(20, timeout=SLOW_MS)
    expect(page.locator("#sign")).to_contain_text("positive = more stable")
    expect(page.locator("#scanned")).to_contain_text("lysozyme: 147 residues, 2,793 substitutions")
    colours = """() => {
      const canvas = document.getElementById("cells");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return new Set(new Uint32Array(data.buffer)).size;
    }"""
    assert page.evaluate(colours) > 50

    scan = DeltaTmModel.builtin(threads=1).scan(LYSOZYME)
    page.locator("#map").focus()
    for key in ("ArrowRight", "ArrowRight", "PageDown", "ArrowDown"):
        page.keyboard.press(key)
    delta = float(scan.estimate.delta_tm[12, AMINO_ACIDS.index("V")])
    readout = page.locator("#readout")
    expect(readout).to_contain_text(f"P13V, ΔTm {delta:+.2f} °C".replace("-", MINUS))
    expect(readout).to_contain_text(f"probability {scan.estimate.probability[12, AMINO_ACIDS.index('V')]:.2f}")
    page.keyboard.press("End")
    expect(readout).to_contain_text("L147V")


def test_the_best_substitution_leads_to_its_cell_and_all_of_them_are_saved(page: Page) -> None:
    predict(page, TWO)
    page.get_by_role("button", name="Scan the substitutions of reductase").click()
    best = page.locator("#shortlist button").first
    best.click(timeout=SLOW_MS)
    expect(page.locator("#map")).to_be_focused()
    expect(page.locator("#readout")).to_contain_text(best.inner_text())
    rows = downloaded(page, "Download CSV of all")
    assert len(rows) == 19 * len(REDUCTASE)
    assert rows[0]["variant"] == best.inner_text()
    assert float(rows[0]["delta_tm_celsius"]) == max(float(row["delta_tm_celsius"]) for row in rows)


def test_the_pointer_reads_the_heat_map(page: Page) -> None:
    predict(page, TWO)
    page.get_by_role("button", name="Scan the substitutions of lysozyme").click()
    expect(page.locator("#shortlist tr")).to_have_count(20, timeout=SLOW_MS)
    page.locator("#map").scroll_into_view_if_needed()
    page.locator("#cells").hover(position={"x": 95, "y": 60})
    expect(page.locator("#readout")).to_contain_text(re.compile(rf"^M1A, ΔTm [{MINUS}+]\d"))


def test_the_csv_holds_the_answer_and_no_formula(page: Page, builtin: Predictor) -> None:
    table = f'id,sequence\n"=HYPERLINK(""x"")",{LYSOZYME}\n"a, ""b""",{REDUCTASE}\n-odd,MKV1\n'
    predict(page, table)
    assert cells(page, 2) == ['=HYPERLINK("x")', 'a, "b"', "-odd"]
    expect(page.get_by_role("button", name='Scan the substitutions of a, "b"')).to_be_visible()
    rows = downloaded(page, "Download CSV")
    assert [row["id"] for row in rows] == ['\'=HYPERLINK("x")', 'a, "b"', "'-odd"]
    wanted = builtin.predict([LYSOZYME, REDUCTASE])
    assert [float(row["tm_celsius"]) for row in rows[:2]] == [row.tm_celsius for row in wanted]
    assert rows[0]["in_domain"] == "true"
    assert (rows[2]["tm_celsius"], rows[2]["status"]) == ("", "error")


def test_a_hostile_name_is_shown_as_text(page: Page) -> None:
    name = "<img/src=x/onerror=document.title='taken'>"
    predict(page, f">{name}\n{LYSOZYME}\n")
    assert cells(page, 2) == [name]
    page.locator("#rows button").click()
    expect(page.locator("#scanned")).to_contain_text(name, timeout=SLOW_MS)
    expect(page.get_by_role("status").first).to_contain_text(name)
    assert page.locator("img").count() == 0
    assert page.title() == "Melting temperature of proteins"


def test_a_dropped_compressed_file_is_predicted(page: Page, examples: Path) -> None:
    drop(page, "enzymes.fasta.gz", gzip.compress(examples.read_bytes()))
    expect(page.get_by_role("status").first).to_contain_text("enzymes.fasta.gz")
    page.get_by_role("button", name="Predict").click()
    names = cells(page, 2)
    assert len(names) == 12
    assert "P00698" in names
    expect(page.get_by_role("button", name="Scan the substitutions of P00698")).to_be_visible()


def test_a_file_that_cannot_be_read_is_explained_in_a_sentence(open_page: Open, service: str) -> None:
    page = open_page(service, refused=True)
    page.get_by_label("Or a file").set_input_files({"name": "x.csv", "mimeType": "text/csv", "buffer": b"a,b\n1,2\n"})
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text("no column is named like a sequence", timeout=SLOW_MS)
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    predict(page, LYSOZYME)
    assert len(cells(page, 2)) == 1


def test_lines_without_a_name_are_not_guessed_at(page: Page) -> None:
    predict(page, f"{LYSOZYME[:60]}\n{LYSOZYME[60:]}\n")
    expect(page.get_by_role("alert")).to_contain_text("one protein or several")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text("Paste a sequence or choose a file first")


def test_the_example_needs_one_click(page: Page) -> None:
    page.get_by_role("button", name="Example").click()
    assert cells(page, 2) == ["P00698", "Q60034"]


def test_a_large_input_is_a_job_that_outlives_the_page(page: Page) -> None:
    predict(page, made_up(2001, 20))
    expect(page.locator("#facts")).to_contain_text("2,001", timeout=3 * SLOW_MS)
    assert "#job=" in page.url
    assert page.locator("#rows tr").count() == 100
    expect(page.locator("#shown")).to_have_text("Rows 1 to 100 of 2,001")
    page.get_by_role("button", name="Next").click()
    assert cells(page, 2)[0] == "protein_101"
    assert len(downloaded(page, "Download CSV")) == 2001
    page.reload()
    expect(page.locator("#facts")).to_contain_text("2,001", timeout=SLOW_MS)


def test_a_job_can_be_cancelled(page: Page, service: str) -> None:
    predict(page, made_up(9000, 150))
    page.wait_for_url("**/#job=*")
    job = page.url.partition("#job=")[2].partition("&")[0]
    expect(page.locator("#finished")).to_contain_text("of 9,000 proteins")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status").first).to_have_text("Cancelled.")
    expect(page.get_by_role("progressbar")).to_be_hidden()
    deadline = time.monotonic() + 20
    while (state := _json(f"{service}v1/jobs/{job}")["state"]) != "cancelled":
        assert time.monotonic() < deadline, state
        time.sleep(0.1)


def test_without_a_database_a_larger_input_is_answered_at_once(
    open_page: Open, strict_service: str, keys: dict[str, str]
) -> None:
    page = open_page(strict_service, refused=True)
    _enter(page, keys["often"])
    predict(page, made_up(2001, 20))
    expect(page.locator("#facts")).to_contain_text("2,001", timeout=3 * SLOW_MS)


def test_a_missing_key_is_asked_for_and_then_kept_in_the_tab_alone(
    open_page: Open, strict_service: str, keys: dict[str, str]
) -> None:
    page = open_page(strict_service, refused=True)
    expect(page.get_by_role("alert")).to_have_text("This service asks for an API key: enter yours under “API key”.")
    key = page.get_by_label("Key, where this service asks for one")
    expect(key).to_be_focused()
    key.fill("es_wrong")
    key.press("Tab")
    expect(page.get_by_role("alert")).to_contain_text("does not accept this API key")
    _enter(page, keys["often"])
    expect(page.get_by_role("alert")).to_be_hidden()
    predict(page, f">lysozyme\n{LYSOZYME}\n")
    assert cells(page, 2) == ["lysozyme"]
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]


def test_a_busy_service_is_asked_again_when_it_says(open_page: Open, strict_service: str, keys: dict[str, str]) -> None:
    page = open_page(strict_service, refused=True)
    _enter(page, keys["seldom"])
    expect(page.locator("#served")).to_contain_text("builtin")
    with pytest.raises(urllib.error.HTTPError, match="429"):
        _use_up(strict_service, keys["seldom"])
    predict(page, f">lysozyme\n{LYSOZYME}\n")
    expect(page.get_by_role("status").first).to_contain_text("The service is busy; trying again in")
    assert cells(page, 2) == ["lysozyme"]


def test_what_is_over_a_limit_is_refused_in_a_sentence(
    open_page: Open, strict_service: str, keys: dict[str, str]
) -> None:
    page = open_page(strict_service, refused=True)
    _enter(page, keys["often"])
    predict(page, f">reductase\n{REDUCTASE}\n")
    page.locator("#rows button").click()
    expect(page.get_by_role("alert")).to_contain_text("169 residues are more than the 150")
    predict(page, made_up(100, 20))
    expect(page.get_by_role("alert")).to_contain_text(re.compile(r"2,000 bytes.*\.$"))


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_window(open_page: Open, service: str, viewport: dict[str, int]) -> None:
    page = open_page(service, viewport=viewport)
    assert overflow(page) <= 0
    predict(page, f">{'long' * 60}\n{LYSOZYME}\n>odd\n{'GPGXU' * 30}\n{TWO}")
    page.locator("#rows button").first.click()
    expect(page.locator("#shortlist tr")).to_have_count(20, timeout=SLOW_MS)
    page.get_by_text("Model card", exact=True).click()
    expect(page.get_by_role("heading", name="Limits")).to_be_visible()
    assert overflow(page) <= 0
    if viewport == DESKTOP:
        assert page.locator("#results .scroll").evaluate("region => region.scrollWidth - region.clientWidth") <= 0


def test_every_control_has_a_name(page: Page) -> None:
    predict(page, TWO)
    page.locator("#rows button").first.click()
    expect(page.locator("#shortlist tr")).to_have_count(20, timeout=SLOW_MS)
    for summary in page.locator("summary").all():
        summary.click()
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen = [(node["role"]["value"], node["name"]["value"].strip()) for node in nodes if not node["ignored"]]
    controls = [(role, name) for role, name in seen if role in CONTROLS | LANDMARKS]
    assert {"textbox", "button", "combobox", "spinbutton", "slider", "application"} <= {role for role, _ in controls}
    assert [role for role, name in controls if not name] == []
    controls = "() => [...document.querySelectorAll('input, select, textarea')].filter((one) => !one.labels.length)"
    assert page.evaluate(f"({controls})().length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page: Open, service: str, scheme: str) -> None:
    page = open_page(service, color_scheme=scheme)
    texts = ["ink", "quiet", "inside", "outside", "wrong", "undecided", "focus", "up", "down"]
    names = [*texts, "paper", "panel", "on-focus"]
    read = "names => names.map((n) => getComputedStyle(document.documentElement).getPropertyValue(`--${n}`).trim())"
    colours = dict(zip(names, page.evaluate(read, names), strict=True))
    pairs = [(name, ground) for name in texts for ground in ("paper", "panel")] + [("on-focus", "focus")]
    contrasts = {pair: _contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert {pair: contrast for pair, contrast in contrasts.items() if contrast < 4.5} == {}


def test_the_model_card_is_there_to_read(page: Page) -> None:
    expect(page.locator("#served")).to_contain_text("builtin")
    page.get_by_text("Model card", exact=True).click()
    expect(page.get_by_role("heading", name="Training data", exact=True)).to_be_visible()
    expect(page.locator(".card table").first).to_contain_text("proteins learnt from")
    assert "**" not in page.locator("#card-text").inner_text()


def _enter(page: Page, key: str) -> None:
    field = page.get_by_label("Key, where this service asks for one")
    expect(field).to_be_visible()
    field.fill(key)
    field.press("Tab")
    expect(page.locator("#served")).to_contain_text("version")


def _use_up(address: str, key: str) -> None:
    for _ in range(60):
        _json(f"{address}v1/model", key)


def _json(url: str, key: str = "") -> Any:
    request = urllib.request.Request(url, headers={"X-API-Key": key} if key else {})  # noqa: S310 - our own service
    with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
        return json.load(response)


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours as WCAG defines it (w3.org/TR/WCAG21/#dfn-contrast-ratio)."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
