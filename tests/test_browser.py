"""The HTML page in a real browser: it sorts, filters and opens, and asks nobody for anything."""

import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from leaderboard import write
from tests.helpers import a_remaining, a_result, a_trial
from tests.test_compare import HOSTILE
from zoo.records.result import Failure, Point
from zoo.records.storage import save

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver here: the page was NOT tested in a browser",
)
SCORES = {"magnitude": 70.0, "movement": 80.0, "smp_s": 75.0}


def fill(folder: Path, label: str | None = None) -> Path:
    """Dense and three methods at two targets, three seeds, one failure."""
    for seed in range(3):
        dense = a_trial(method="dense", density=1.0, seed=seed, hyper={})
        remaining = a_remaining(1.0)
        save(a_result(dense, metrics={"acc": 90.0 + seed}, remaining=remaining), folder)
        for method, score in SCORES.items():
            for density in (0.1, 0.03):
                trial = a_trial(method=method, density=density, seed=seed)
                metrics = {"acc": score + seed + density}
                points = (
                    Point(100, density, 0.5, 0.6, {"acc": score + 1}),
                    Point(200, density, 0.5, density, {"acc": score + 2}),
                    Point(300, density, 0.5, density, metrics),
                )
                base = a_result(trial, metrics=metrics, curve=points)
                facts = replace(base.facts, label=label or "")
                save(replace(base, facts=facts), folder)
    save(Failure(a_trial(method="movement", seed=9), "no luck"), folder)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = fill(tmp_path_factory.mktemp("board") / "suite")
    write(folder, figures=False)
    return folder / "leaderboard.html"


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync")
    closed = ("--disable-background-networking", "--disable-component-update", "--disable-quic")
    for flag in (*quiet, *closed, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_window_size(1280, 900)
    yield driver
    driver.quit()


def shown(browser) -> list[str]:
    """First cells of the rows that are visible."""
    script = (
        "return [...document.querySelectorAll('tr.row')].filter(r => !r.hidden)"
        ".map(r => r.querySelector('.open').textContent + ' ' + r.dataset.target)"
    )
    return browser.execute_script(script)


def click(browser, selector: str) -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.CSS_SELECTOR, selector).click()


@needs_browser
def test_the_page_sorts_filters_and_opens(page, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(page.as_uri())
    first = shown(browser)
    assert first[:2] == ["constant answer ", "dense 100"] and len(first) == 8

    click(browser, ".main thead th:nth-child(2) button")
    best_first = shown(browser)
    assert best_first[:3] == ["dense 100", "movement 10", "movement 3"]
    click(browser, ".main thead th:nth-child(2) button")
    assert shown(browser)[-1] == "dense 100" and shown(browser) != best_first
    click(browser, ".main thead th:nth-child(1) button")
    assert shown(browser)[0].startswith("constant answer")

    search = browser.find_element(By.CSS_SELECTOR, "input[type=search]")
    search.send_keys("move")
    assert sorted(shown(browser)) == ["movement 10", "movement 3"]
    browser.find_element(By.CSS_SELECTOR, "option[value='3']").click()
    assert shown(browser) == ["movement 3"]
    assert browser.find_element(By.TAG_NAME, "output").text == "1 row"
    search.send_keys(Keys.BACKSPACE * 4)
    assert sorted(shown(browser)) == ["magnitude 3", "movement 3", "smp_s 3"]

    row = browser.find_element(By.CSS_SELECTOR, "tr.row:not([hidden]) .open")
    detail = browser.find_element(By.ID, row.get_attribute("aria-controls"))
    assert not detail.is_displayed()
    row.send_keys(Keys.ENTER)  # by keyboard
    assert detail.is_displayed() and row.get_attribute("aria-expanded") == "true"
    assert (
        "--methods" in detail.text
        and "Hyper-parameters" in detail.text
        and "first row" in detail.text
    )
    row.send_keys(Keys.SPACE)
    assert not detail.is_displayed()


@needs_browser
def test_it_asks_nobody_and_complains_of_nothing(page, browser):
    browser.get(page.as_uri())
    click(browser, ".theme")
    click(browser, "tr.row .open")
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
    assert browser.get_log("browser") == []


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_but_tables_scrolls_sideways(page, browser, width):
    browser.set_window_size(width, 800)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(page.as_uri())
    click(browser, "tr.row:nth-of-type(3) .open")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_no_score_is_out_of_sight(page, browser, width):
    """Every number of the table of methods is on the screen without scrolling sideways."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(page.as_uri())
    right = browser.execute_script(
        "return [...document.querySelectorAll('.main td[data-label]')]"
        ".filter(c => c.offsetParent)"
        ".map(c => c.getBoundingClientRect().right)"
    )
    assert len(right) == 8 * 3 and max(right) <= width


@needs_browser
def test_the_switch_shows_all_columns(page, browser):
    browser.get(page.as_uri())
    visible = (
        "return [...document.querySelectorAll('.main thead th')].filter(c => c.offsetParent).length"
    )
    assert browser.execute_script(visible) <= 6
    before = browser.execute_script(visible)
    click(browser, ".switch")
    assert browser.execute_script(visible) > before + 5


@needs_browser
def test_an_address_opens_a_row_and_a_keyboard_reaches_every_table(page, browser):
    from selenium.webdriver.common.by import By

    row = "tiny-mmmmmm-released-plain-movement-3"
    browser.get(f"{page.as_uri()}#{row}")
    assert browser.find_element(By.ID, row).is_displayed()
    boxes = browser.find_elements(By.CSS_SELECTOR, ".scroll")
    assert boxes and all(box.get_attribute("tabindex") == "0" for box in boxes)
    assert all(box.get_attribute("aria-label") for box in boxes)


@needs_browser
def test_light_and_dark_are_readable(page, browser):
    """Contrast of text against its background in both themes: at least 4.5 to 1 (WCAG AA)."""
    browser.get(page.as_uri())
    script = """
      const rgb = (value) => value.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = (c) => rgb(c).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const paper = light(getComputedStyle(document.body).backgroundColor);
      return [...document.querySelectorAll('p, td, th, summary, h2, .soft, .notes')].map(node => {
        const ink = light(getComputedStyle(node).color);
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      });
    """
    for _ in range(2):
        assert min(browser.execute_script(script)) >= 4.5
        click(browser, ".theme")


class Tags(HTMLParser):
    """The tags and attribute names of a page, in order, without its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.links: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self.links |= {value for name, value in attrs if name in ("href", "src", "xlink:href")}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_change_no_tag(tmp_path, text):
    plain, hostile = Tags(), Tags()
    for name, tags in (("movement", plain), (text, hostile)):
        folder = fill(
            tmp_path / str(len(tags.found)) / name[:1].encode().hex() / "suite", label=name
        )
        write(folder, figures=False)
        tags.feed((folder / "leaderboard.html").read_text())
    assert hostile.found == plain.found
    assert {link for link in hostile.links if link[:1] != "#"} == {"data:,", "results.csv"}


def test_the_page_is_one_file_and_small(page):
    text = page.read_text()
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert text.count("<script") == 1 and "src=" not in text
    assert len(text) < 200_000
