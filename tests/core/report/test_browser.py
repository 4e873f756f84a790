"""The report as a person has it: opened from a file in Chromium, searched, filtered, unfolded, turned dark and printed."""

from collections.abc import Iterator

import pytest

from core.report.html import read_report, report_html
from core.results import open_store
from perf.browser import NAMES, Tab, chromium, tab
from tests.core.report.test_html import HOSTILE, fill

pytestmark = pytest.mark.skipif(
    chromium() is None, reason=f"there is no browser here: none of {', '.join(NAMES)} on PATH"
)
COUNT = "get('count').textContent"
SHOWN = "[...document.querySelectorAll('.row')].map((row) => Number(row.dataset.place))"
PAPER = "getComputedStyle(document.body).backgroundColor"
WIDTHS = "[...document.querySelectorAll('.chart .main-svg')].map((each) => each.clientWidth)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    with tab() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    store = open_store(str(folder / "store"))
    fill(store)
    file = folder / "report.html"
    file.write_text(report_html(read_report(store, "nightly")), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def page(browser: Tab, address: str) -> Iterator[Tab]:
    """The report, freshly opened; afterwards its console has no error, and it has asked for nothing but itself."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open(address)
    browser.until(f"{COUNT} === '40 of 40'")
    yield browser
    assert browser.errors == []
    assert {each for each in browser.requests if not each.startswith("data:")} == {address}


def choose(page: Tab, select: str, value: str) -> None:
    page.run(f"get('{select}').value = '{value}'; get('{select}').dispatchEvent(new Event('change'))")


def test_a_search_is_typed_after_a_slash_and_cleared_by_escape(page: Tab) -> None:
    page.key("/")
    page.type("much is 1? large")
    page.until(f"{COUNT} === '2 of 40'")  # of docs 1 and 11
    page.run("get('search').select()")
    page.type('"much is 1?" large')
    page.until(f"{COUNT} === '1 of 40'")
    assert page.run(SHOWN) == [0]
    page.key("Escape")
    page.until(f"{COUNT} === '40 of 40'")
    assert page.run("get('search').value") == ""


def test_filters_leave_rows_that_fit(page: Tab) -> None:
    choose(page, "state", "no answer")
    page.until(f"{COUNT} === '2 of 40'")
    choose(page, "model", "1")
    page.until(f"{COUNT} === '1 of 40'")
    assert page.run("document.querySelector('.row').children[1].textContent") == "tiny"
    choose(page, "model", "")
    choose(page, "state", "flipped")
    page.until(f"{COUNT} === '34 of 40'")


def test_a_row_opens_with_its_prompt_folded_and_what_models_wrote_as_text(page: Tab) -> None:
    page.click("get('row-3')")
    page.until("get('detail').querySelector('.others')")
    assert page.run("get('detail').querySelector('h3').textContent") == "gsm8k, gsm8k doc 1, tiny: wrong"
    assert page.run("[...get('detail').querySelectorAll('details')].map((each) => each.open)") == [False, False, True]
    page.click("get('detail').querySelector('summary')")
    page.until("get('detail').querySelector('details').open")
    assert page.run("get('detail').querySelector('pre').innerText").startswith(
        "How much is 1? </script><script>alert(1)"
    )
    assert page.run("get('detail').querySelectorAll('script, img').length") == 0
    assert page.run("get('detail').querySelector('details:nth-of-type(3) pre').textContent") == f"tiny: {HOSTILE}"


def test_keys_go_through_the_table(page: Tab) -> None:
    page.run("get('rows').focus()")
    page.key("End")
    page.until("get('row-39')?.getAttribute('aria-selected') === 'true'")
    page.key("ArrowUp")
    page.key("Enter")
    page.until("get('detail').querySelector('h3')?.textContent.includes('doc 19, large')")


def test_the_theme_turns_by_key_and_by_button(page: Tab) -> None:
    assert page.run(PAPER) == "rgb(255, 255, 255)"
    page.key("t")
    assert page.run(PAPER) == "rgb(13, 17, 23)"
    page.click("get('theme')")
    assert page.run(PAPER) == "rgb(255, 255, 255)"


def test_charts_are_drawn_when_they_come_into_view_and_all_of_them_on_paper(page: Tab) -> None:
    page.until("get('chart-scores').querySelector('.main-svg')")
    wide = page.run("get('chart-scores').clientWidth")
    assert page.run("get('chart-timeline').querySelector('.main-svg')") is None
    assert page.run("document.querySelectorAll('.modebar--hover').length")  # its tools wait for the mouse
    page.run("addEventListener('beforeprint', () => { window.printed = " + WIDTHS + "; }); undefined")
    page.send("Page.printToPDF")
    assert set(page.run("window.printed")) == {700}
    assert page.run("Object.keys(charts).every((id) => get(id).querySelector('.main-svg'))")
    assert set(page.run(WIDTHS)) == {wide}
