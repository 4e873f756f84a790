"""``steelyard report`` in process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.results import open_store
from tests.core.report.test_html import Page, fill


def test_a_report_of_a_part_of_a_store_is_written(
    steelyard: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(open_store(str(tmp_path / "store")))
    code, out, _ = steelyard("report", "store", "--model", "tiny", "--samples", "10", "-o", "page.html")
    assert code == 0
    assert out.startswith("page.html: ")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.unpacked("index")["models"] == ["tiny"]
    assert len(page.unpacked("index")["doc"]) == 10


def test_nothing_to_report_and_no_place_to_write_are_one_line(
    steelyard: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    code, _, err = steelyard("report", str(store))
    assert (code, err) == (2, f"steelyard: No complete results in {store} yet\n")
    fill(open_store(str(store)))
    code, _, err = steelyard("report", str(store), "-o", str(tmp_path / "none" / "page.html"))
    assert (code, "it cannot be written: No such file or directory" in err) == (2, True)
