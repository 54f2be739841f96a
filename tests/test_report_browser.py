"""Reports in a real browser. Skipped where there is no Chromium."""

import csv
import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from small_reports import HOSTILE, METHODS, sample_items, sample_rows, sample_scores, write_folder

from jelicit.report import compare_reports, write_report
from jelicit.results import Results

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}

# Every visible text against the background that is behind it, by WCAG's formula.
CONTRASTS = """() => {
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = numbers(getComputedStyle(e).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (style.opacity < 1) continue;  // a button that is off
    const ink = element.ownerSVGElement ? style.fill : style.color;
    const [a, b] = [light(numbers(ink)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, `${element.tagName}.${element.className} ${walker.currentNode.data}`]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser found; looked for {', '.join(BROWSERS)}")
    with playwright_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path)
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("runs") / "first")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def comparison(folder):
    other = write_folder(folder.parent / "second", settings={"steps": 20}, seed=1, hostile=False)
    return compare_reports([folder, other], folder.parent / "compare.html")


@pytest.fixture
def visit(browser):
    """Opens a file and gives the page once its data is there, and everything it complained of."""
    contexts = []

    def visit(path, **options):
        context = browser.new_context(**{"viewport": DESK, **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.complaints, page.requested = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture
def page(visit, folder):
    return visit(folder / "report.html")


@pytest.fixture(scope="module")
def rows(folder):
    found = [Results(folder / "rows").read(f"run-{name}") for name in ("none", "tense")]
    return pd.concat(found, ignore_index=True)


def head(page, name):
    return page.get_by_role("button", name=name, exact=True)


def column(page, name):
    """The texts of a column of the table of rows, as drawn."""
    heads = [text.rstrip(" ↑↓") for text in page.locator(".rows thead th").all_inner_texts()]
    place = heads.index(name) + 1
    return page.locator(f".rows tbody tr:not(.gap) td:nth-child({place})").all_inner_texts()


def count(page):
    return page.locator("#rows .count").inner_text()


def item_texts(page):
    return page.locator(".item .short").all_inner_texts()


# --- opening -------------------------------------------------------------------------------------


def test_it_opens_from_disk_without_a_complaint_or_a_request(page, folder):
    assert page.get_attribute("html", "data-ready") == "yes"
    assert page.complaints == []
    asked = [url for url in page.requested if not url.startswith("data:")]
    assert asked == [(folder / "report.html").resolve().as_uri()]


def test_hostile_text_stays_text(page):
    page.locator(".item .opener").first.click()
    assert page.title().startswith("Title </script><script>document.title = 'run'</script>")
    assert page.locator("main img").count() == 1
    assert page.locator("main script, body > img, iframe, object").count() == 0
    assert page.complaints == []
    shown = page.locator("h1").inner_text()
    assert HOSTILE[1] in shown
    assert "⟨U+202E⟩" in shown


def test_every_hostile_claim_can_be_read_in_the_item_browser(page):
    page.get_by_label("Sort by").select_option("none")
    shown = item_texts(page)
    for text, found in zip(HOSTILE, shown, strict=False):
        hidden = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
        told = hidden.sub(lambda c: f"⟨U+{ord(c[0]):04X}⟩", text)
        assert told[:100] in found


def test_a_script_that_got_into_the_page_would_not_run(page):
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "document.documentElement.dataset.ran = 'yes'";
        document.body.append(script);
        document.body.insertAdjacentHTML(
            "beforeend", "<img src=x onerror=\\"document.documentElement.dataset.ran = 'yes'\\">");
    }""")
    page.wait_for_timeout(50)
    assert page.get_attribute("html", "data-ran") is None
    assert any("Content Security Policy" in text for text in page.complaints)


def test_a_figure_is_drawn_and_its_script_does_not_run(page):
    image = page.locator("figure img")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 200
    assert page.title() != "run"


def test_damaged_data_is_told_and_the_rest_stays(visit, folder, tmp_path):
    text = (folder / "report.html").read_text(encoding="utf-8")
    (tmp_path / "report.html").write_text(
        re.sub(r'id="data">.{40}', 'id="data">' + "A" * 40, text), encoding="utf-8"
    )
    page = visit(tmp_path / "report.html")
    assert "could not be read" in page.get_by_role("alert").inner_text()
    assert page.locator(".finding").count() == 3


# --- rows ----------------------------------------------------------------------------------------


def test_rows_are_shown_as_they_were_measured(page, rows):
    drawn = column(page, "AUROC")
    assert drawn == [f"{value:.4f}" for value in rows["auroc"][: len(drawn)]]
    assert count(page) == f"{len(rows)} rows"


def test_a_click_on_a_head_sorts_and_another_one_turns_it_around(page, rows):
    head(page, "AUROC").click()
    drawn = column(page, "AUROC")
    assert drawn == [f"{v:.4f}" for v in sorted(rows["auroc"], reverse=True)[: len(drawn)]]
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("AUROC")
    page.locator("th[aria-sort=descending] button").click()
    assert column(page, "AUROC")[0] == f"{rows['auroc'].min():.4f}"
    page.locator("th[aria-sort=ascending] button").click()
    assert column(page, "AUROC")[0] == f"{rows['auroc'][0]:.4f}"


def test_missing_values_are_last_whichever_way_rows_are_sorted(page, rows):
    for _ in range(2):
        page.locator(".rows th button", has_text="Layer").click()
        assert column(page, "Layer")[0] != ""
        page.locator(".view").evaluate("view => view.scrollTo(0, 1e9)")
        missing = int(rows["layer"].isna().sum())
        expect(page.locator(f".rows tr[aria-rowindex='{len(rows) + 2}']")).to_be_attached()
        assert column(page, "Layer")[-missing:] == [""] * missing


def test_sorting_by_two_columns_keeps_the_first_order_within_ties(page, rows):
    page.locator(".rows th button", has_text="Seed").click()
    page.locator(".rows th button", has_text="Method").click()
    drawn = list(zip(column(page, "Method"), column(page, "Seed"), strict=True))
    in_ccs = [int(seed) for method, seed in drawn if method == "CCS"]
    assert in_ccs == sorted(in_ccs, reverse=True)
    assert drawn[0][0] == "Zero-shot"
    assert drawn[-1][0] in ("CCS", "PCA")


EXPRESSIONS = {
    "> 0.8": lambda x: x > 0.8,
    "<=0.5": lambda x: x <= 0.5,
    "0.4..0.6": lambda x: (x >= 0.4) & (x <= 0.6),
    ">0.5 <0.7": lambda x: (x > 0.5) & (x < 0.7),
    "!=0": lambda x: x != 0,
    "none": lambda x: x.isna(),
}


def test_a_number_filter_keeps_the_rows_that_pass(page, rows):
    field = page.get_by_label("Filter AUROC", exact=True)
    for text, test in EXPRESSIONS.items():
        field.fill(text)
        kept = int(test(rows["auroc"].round(4)).sum())
        expect(page.locator("#rows .count")).to_have_text(f"{kept} of {len(rows)} rows")


def test_a_filter_that_means_nothing_is_marked_and_changes_nothing(page, rows):
    field = page.get_by_label("Filter AUROC", exact=True)
    field.fill("> high")
    expect(field).to_have_attribute("aria-invalid", "true")
    assert count(page) == f"{len(rows)} rows"


def test_filters_of_several_columns_meet_and_can_be_cleared(page, rows):
    page.get_by_label("Filter Method").select_option(label="CCS")
    page.get_by_label("Filter Layer").select_option(label="5")
    kept = rows.query("method == 'ccs' and layer == 5")
    assert count(page) == f"{len(kept)} of {len(rows)} rows"
    assert set(column(page, "Method")) == {"CCS"}
    page.get_by_role("button", name="Clear filters").click()
    assert count(page) == f"{len(rows)} rows"


def test_the_csv_has_the_rows_and_columns_that_are_shown_in_their_order(page, rows):
    page.get_by_label("Filter Method").select_option(label="PCA")
    head(page, "AUROC").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    found = list(csv.DictReader(io.StringIO(waiting.value.path().read_text(encoding="utf-8"))))
    wanted = rows.query("method == 'pca'").sort_values("auroc", ascending=False, kind="stable")
    assert [row["auroc"] for row in found] == [f"{value:.4f}" for value in wanted["auroc"]]
    assert [row["method"] for row in found] == ["pca"] * len(wanted)
    assert "run_id" not in found[0]


def test_columns_can_be_shown_and_hidden(page):
    page.locator("#rows .menu summary").click()
    box = page.get_by_role("checkbox", name="Run id")
    box.check()
    assert set(column(page, "Run id")) <= {"run-none", "run-tense"}
    box.uncheck()
    assert page.locator(".rows thead th", has_text="Run id").count() == 0


def test_columns_that_never_change_are_folded_away(page):
    assert page.locator(".rows thead th", has_text="Dataset").count() == 0
    folded = page.locator("#rows details", has_text="The same in every row")
    folded.locator("summary").click()
    assert "pocket/facts" in folded.inner_text() or "Facts (pocket)" in folded.inner_text()


def test_only_what_is_seen_of_many_rows_is_drawn(visit, tmp_path):
    write_folder(tmp_path)
    frame = pd.concat([sample_rows()[1]] * 40, ignore_index=True)
    frame["seed"], frame["auroc"] = np.arange(len(frame)), np.linspace(0, 1, len(frame))
    results = Results(tmp_path / "rows")
    results.write("run-tense", frame, results.settings("run-tense"))
    first = len(sample_rows()[0])
    page = visit(write_report(tmp_path))
    assert page.locator(".rows tbody tr").count() < 80
    page.locator(".view").evaluate("view => view.scrollTo(0, view.scrollHeight)")
    last = page.locator(f".rows tr[aria-rowindex='{len(frame) + 2 + first}']")
    expect(last).to_contain_text("1.0000")
    assert page.locator(".rows tbody tr").count() < 80


# --- chart ---------------------------------------------------------------------------------------


def test_the_chart_shows_the_mean_over_seeds_of_what_was_chosen(page, rows):
    page.locator("#chart").get_by_label("Feature").select_option(label="Tense")
    page.locator("#chart").get_by_label("Layer").select_option(label="5")
    page.locator("#chart").get_by_label("Sign chosen by").select_option(label="easy")
    chosen = rows.query("feature == 'tense' and layer == 5 and orientation in ('easy', 'none')")
    means = chosen.groupby(["method", "role"])["auroc"].mean()
    for method, name in (("pca", "PCA"), ("supervised", "Supervised")):
        label = page.locator(f".line[aria-label^='{name}:']").get_attribute("aria-label")
        for role, said in (("truth", "asked for"), ("spurious", "spurious")):
            mean = means[method, role]
            assert float(re.findall(rf"{said} ([\d.]+)", label)[0]) == pytest.approx(mean, abs=6e-4)
    assert page.locator(".line").count() == len(METHODS) + 1


def test_a_line_of_the_chart_tells_its_numbers_to_mouse_and_keyboard(page):
    page.locator(".line").nth(1).hover()
    assert "CCS" in page.locator(".tip").inner_text()
    page.locator(".line").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator(".tip").inner_text().startswith("PCA")
    assert "3 seeds" in page.locator(".tip").inner_text()


# --- items ---------------------------------------------------------------------------------------


def places(scores):
    """Percentiles by brute force: the share below, and half the share of ties."""
    known = scores[~np.isnan(scores)]
    below = (known[None, :] < scores[:, None]).mean(1) + (known == scores[:, None]).mean(1) / 2
    return np.where(np.isnan(scores), np.nan, below)


@pytest.fixture(scope="module")
def truth():
    """Labels, and per column the scores as the page has them."""
    items = sample_items()
    labels = np.array([np.nan if item.label is None else float(item.label) for item in items])
    exact = sample_scores(items).scores.astype(np.float64)
    return labels, np.sign(exact) * np.ceil(np.abs(exact) * 1000 - 1e-6) / 1000


def drawn_items(page):
    return [int(text.split()[1]) for text in item_texts(page)]


def test_items_are_sorted_by_the_error_of_the_chosen_method(page, truth):
    labels, scores = truth
    page.get_by_label("Method", exact=True).and_(page.get_by_role("combobox")).select_option(
        label="Supervised"
    )
    error = np.abs(labels - places(scores[:, 2]))
    largest = np.sort(error[~np.isnan(error)])[::-1][:25]
    np.testing.assert_allclose(error[drawn_items(page)], largest, atol=1e-9)
    shown = page.locator(".item .sorted").all_inner_texts()
    np.testing.assert_allclose([float(text) for text in shown], largest, atol=0.0051)


def test_items_are_sorted_by_disagreement_of_the_shown_methods(page, truth):
    _, scores = truth
    page.get_by_text("Methods", exact=True).click()
    page.get_by_role("button", name="All").click()
    page.get_by_label("Sort by").select_option(label="disagreement between methods")
    ranks = np.stack([places(scores[:, k]) for k in range(4)], 1)
    spread = np.nanstd(ranks, axis=1, ddof=1)
    found = drawn_items(page)
    np.testing.assert_allclose(spread[found], np.sort(spread)[::-1][:25], atol=1e-9)


def test_only_items_that_the_method_gets_wrong_are_left(page, truth):
    labels, scores = truth
    page.get_by_label("Its verdict is").select_option(label="wrong")
    wrong = ~np.isnan(labels) & ((scores[:, 0] > 0) != (labels == 1))
    said = page.locator("#items .count").inner_text()
    assert said.startswith(f"{wrong.sum()} of 60 items")
    assert f"wrong on {wrong.sum()} of {wrong.sum()}" in said
    assert set(drawn_items(page)) <= set(np.flatnonzero(wrong).tolist())
    marks = page.locator(".item .verdict:nth-child(5)").all_inner_texts()
    assert all(mark.startswith("✕") for mark in marks)


def test_items_are_filtered_by_text_and_by_labels(page):
    page.get_by_label("Text", exact=True).fill("CLAIM number 4")
    expect(page.locator(".item")).to_have_count(10)
    assert sorted(drawn_items(page)) == [*range(40, 50)]
    page.get_by_label("Tense", exact=True).select_option(label="True")
    assert sorted(drawn_items(page)) == [42, 45, 48]
    page.get_by_label("Label", exact=True).select_option(label="False")
    assert drawn_items(page) == [45]


def test_an_open_item_shows_its_texts_and_every_method(page, truth):
    labels, scores = truth
    page.get_by_label("Text", exact=True).fill("claim number 12")
    expect(page.locator(".item")).to_have_count(1)
    page.locator(".opener").click()
    told = page.locator(".detail").inner_text()
    assert "claim number 12" in told
    assert "facts/test/12" in told
    lines = page.locator(".strips tbody tr").all_inner_texts()
    assert len(lines) == scores.shape[1]
    line = next(text.split("\t") for text in lines if text.startswith("Supervised"))
    assert line[2] == f"{places(scores[:, 2])[12] * 100:.1f}"
    assert line[3] == f"{scores[12, 2]:.2f}"
    assert ("right" in line[4]) == ((scores[12, 2] > 0) == (labels[12] == 1))
    page.locator(".opener").click()
    assert page.locator(".detail").count() == 0


def test_pages_of_items_follow_each_other(page):
    page.get_by_label("Sort by").select_option("none")
    page.get_by_role("button", name="Next").click()
    assert drawn_items(page) == [*range(25, 50)]
    page.get_by_role("button", name="Next").click()
    assert drawn_items(page) == [*range(50, 60)]
    assert page.get_by_role("button", name="Next").is_disabled()


def test_another_panel_has_its_own_items(page):
    page.get_by_label("Panel").select_option(label="Tense")
    page.get_by_label("Sort by").select_option("none")
    assert drawn_items(page) == [*range(25)]
    assert page.complaints == []


# --- shapes and colours --------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["report", "comparison"])
def test_a_phone_does_not_scroll_sideways(visit, folder, comparison, which):
    page = visit(folder / "report.html" if which == "report" else comparison, viewport=PHONE)
    for opener in page.locator(".opener").all()[:9]:
        opener.click()
    for summary in page.locator("summary").all():
        summary.click()
    page.evaluate("""document.querySelectorAll("select").forEach((select) => {
        select.options[0].text = "a long name of a set, asked for one thing and another";
    })""")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_every_text_stands_out_from_its_background(visit, folder, comparison, scheme, which):
    path = folder / "report.html" if which == "report" else comparison
    page = visit(path, color_scheme=scheme)
    if which == "report":
        page.locator(".opener").first.click()
    found = page.evaluate(CONTRASTS)
    assert len(found) > 100
    ratio, where = min(found)
    assert ratio >= 4.5, where


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_theme_follows_the_system_until_one_is_chosen(visit, folder):
    light, dark = (
        visit(folder / "report.html", color_scheme=scheme) for scheme in ("light", "dark")
    )
    assert background(light) != background(dark)
    dark.get_by_label("Theme").select_option("light")
    assert background(dark) == background(light)
    light.get_by_label("Theme").select_option("dark")
    dark.get_by_label("Theme").select_option("dark")
    assert background(dark) == background(light)


def test_print_is_light_and_without_controls(visit, folder):
    page = visit(folder / "report.html", color_scheme="dark")
    page.emulate_media(media="print")
    assert background(page) == "rgb(255, 255, 255)"
    assert not page.get_by_label("Theme").is_visible()
    assert page.locator(".finding").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= DESK["width"]


def test_all_can_be_done_by_keyboard(page, rows):
    page.locator(".rows th button").first.focus()
    for _ in range(40):
        if page.evaluate("document.activeElement.textContent").strip() == "AUROC":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert column(page, "AUROC")[0] == f"{rows['auroc'].max():.4f}"
    assert page.evaluate("document.activeElement.textContent").startswith("AUROC")


# --- comparison ----------------------------------------------------------------------------------


def test_a_comparison_opens_and_sorts_by_the_difference(visit, comparison):
    page = visit(comparison)
    assert page.complaints == []
    page.locator(".rows th button", has_text="AUROC: second - first").click()
    drawn = column(page, "AUROC: second - first")
    numbers = [float(text) for text in drawn]
    assert numbers == sorted(numbers, reverse=True)
    assert drawn[0].startswith("+")
    assert page.locator(".legend").inner_text().split() == ["first", "second"]
