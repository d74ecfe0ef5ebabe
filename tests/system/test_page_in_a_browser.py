"""The pages at `/` and `/archive` in a real headless browser against a real server."""

import base64
import json
import re
import shutil
import zipfile
from datetime import datetime

import numpy as np
import pytest
import wfdb
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from mets_ray.ecg.ecg import Ecg
from mets_ray.serve.examples import example_json
from tests.support.browser_page import COUNT_INK, DROP, FLAGS, TYPE_CLASSES, Page
from tests.support.calibrations import RARE, made_up_file, write_file
from tests.support.heads import with_heads
from tests.support.scored_archives import scored_archive
from tests.support.serving import STATEMENTS, json_ecg, make_bundle, npy, plain_server, synthetic_ecg


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        pytest.skip("chromium and chromedriver are not both installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver, request, tmp_path):
    """A page that is not opened yet; a test that fails leaves `page.png` in its tmp_path."""
    page = Page(driver)
    page.look(1280)
    page.requests()
    page.console()
    failed_before = request.session.testsfailed
    yield page
    if request.session.testsfailed > failed_before:
        driver.save_screenshot(str(tmp_path / "page.png"))
        print(f"screenshot: {tmp_path / 'page.png'}")


@pytest.fixture
def page(browser, served):
    return browser.open(served.url)


@pytest.fixture
def record(tmp_path):
    """A folder with one ECG as WFDB files, zip, CSV, npy and JSON."""
    ecg = synthetic_ecg(3)
    names = list(ecg.leads)
    wfdb.wrsamp(
        "ecg", fs=100, units=["mV"] * 12, sig_name=names, p_signal=ecg.signal_mv.T, fmt=["16"] * 12, write_dir=tmp_path
    )
    with zipfile.ZipFile(tmp_path / "ecg.zip", "w") as archive:
        for ending in ("hea", "dat"):
            archive.write(tmp_path / f"ecg.{ending}", f"ecg.{ending}")
    np.savetxt(tmp_path / "ecg.csv", ecg.signal_mv.T, fmt="%.3f", delimiter=",", header=",".join(names), comments="")
    (tmp_path / "ecg.npy").write_bytes(npy(np.rint(ecg.signal_mv * 1000).astype(np.int16)))
    (tmp_path / "ecg.json").write_text(json.dumps(json_ecg(ecg)))
    return tmp_path


def test_the_page_loads_without_errors_and_asks_nobody_else(page, served):
    page.choose_example()
    page.bars()
    assert page.console() == []
    urls = page.requests()
    assert any(url.endswith("/static/app.js") for url in urls)
    assert [url for url in urls if not url.startswith((served.url, "data:", "blob:"))] == []
    assert page.find("#synthetic:not([hidden])")
    assert page.text("header").count("not a medical device") == 1


def test_an_example_is_drawn_and_scored(page):
    page.choose_example()
    bars = page.bars()
    drawn = page.run(COUNT_INK)
    assert "12 leads" in page.one("#paper").get_attribute("aria-label")
    assert "V6" in page.one("#ecg-text").get_attribute("textContent")
    assert len(bars) == 12
    assert "each class by itself" in page.text("#scores-about")
    assert "not calibrated: calibrations belong to the words of a prompt set" in page.text("#scores-about")
    assert list(bars.values()) == sorted(bars.values(), reverse=True)
    assert "sinus rhythm" in page.one("#labels").get_attribute("value")
    assert "resampled" in page.text("#warnings")
    assert "encode" in page.text("#run-facts")
    assert page.text("#scale-similarity") == "z-score"
    assert re.fullmatch(r"z-score [+−][0-9]+\.[0-9]", page.one("#bars .similarity").get_attribute("textContent"))
    page.type_classes("AF", "sinus rhythm")
    page.until(lambda: "Read AF as atrial fibrillation." in page.text("#warnings"))
    page.one("#remove").click()
    assert page.find("#bars li") == []
    assert page.run(COUNT_INK) < drawn - 3000


def test_edited_classes_change_the_bars(page):
    page.choose_example()
    before = page.bars()
    assert page.type_classes(*before, "<b>torsades</b>")
    after = page.bars()
    assert set(after) == {*before, "<b>torsades</b>"}
    assert {name: after[name] for name in before} == pytest.approx(before, rel=1e-3)  # each class by itself
    assert page.find("#bars b") == []
    page.type_classes("sinus rhythm", " sinus rhythm ", "", "atrial fibrillation")
    assert set(page.bars()) == {"sinus rhythm", "atrial fibrillation"}
    assert not page.type_classes("")
    assert page.find("#bars li") == []
    assert "at least one" in page.text("#scores")


def test_an_answer_that_comes_late_is_never_shown(page):
    page.choose_example()
    page.bars()
    # The next request is answered when the test says so, and does not let itself be stopped.
    page.run("""
        const real = fetch;
        window.count = 0;
        window.fetch = async (path, options) => {
          if (!path.startsWith("v1/zero-shot") || window.count++) return real(path, options);
          const answer = await real(path, { ...options, signal: undefined });
          await new Promise((resolve) => (window.release = resolve));
          return answer;
        };
        window.shown = [];
        new MutationObserver(() => window.shown.push(document.getElementById("bars").textContent))
          .observe(document.getElementById("bars"), { childList: true });
        """)
    page.type_classes("old one", "old two")
    page.until(lambda: page.run("return Boolean(window.release)"))
    page.run("window.release();" + TYPE_CLASSES, "new one\nnew two")
    assert set(page.bars()) == {"new one", "new two"}
    assert page.run("return window.shown.filter((text) => text.includes('old'))") == []


def test_softmax_is_one_click_away_and_a_template(page):
    page.choose_example()
    alone = page.bars()
    assert sum(alone.values()) != pytest.approx(1, abs=1e-3)
    page.one("#multi-label").click()
    page.until(lambda: "softmax" in page.text("#scores-about"))
    shared = page.bars()
    assert list(alone) == list(shared)
    assert sum(shared.values()) == pytest.approx(1)
    page.one("#advanced summary").click()
    page.one("#template").send_keys("without a place")
    assert "{}" in page.problem("template-problem")
    assert page.find("#bars li") == []
    page.one("#template").clear()
    page.one("#template").send_keys("the heart shows {}")
    page.bars()
    assert "the heart shows {}" in page.text("#run-facts")


def test_a_class_is_explained_on_the_paper_and_in_words(browser, tmp_path):
    canvas = "return document.getElementById('paper').toDataURL()"
    with plain_server(make_bundle(tmp_path, statements=STATEMENTS)) as (client, _):
        page = browser.open(str(client.base_url))
        page.choose_example()
        classes = list(page.bars())
        plain = page.run(canvas)
        page.requests()
        page.one("#why-ask").click()
        page.until(lambda: page.one("#why-found").is_displayed())
        (asked,) = [url for url in page.requests() if "explain=true" in url]
        assert asked.count("explain_classes=") == len(classes)
        assert page.run(canvas) != plain
        assert f"the similarity of {classes[0]} falls most: leads " in page.text("#why-parts")
        assert "336 windows" in page.text("#why-parts")
        assert len(page.find("#why-lists li")) == 10
        assert any(f"{text} " in page.text("#why-lists") for text in STATEMENTS)
        shaded = page.run(canvas)
        Select(page.one("#why-class")).select_by_value(classes[1])  # known already: nothing is asked
        page.until(lambda: f"the similarity of {classes[1]} falls" in page.text("#why-parts"))
        assert page.run(canvas) not in (plain, shaded)
        assert [url for url in page.requests() if "explain=true" in url] == []
        page.one("#why-ask").click()
        assert (page.text("#why-ask"), page.run(canvas)) == ("Show", plain)
        # "Why" of a row shows that class, whatever was chosen or hidden before.
        row = page.find("#bars li")[2]
        assert row.find_element("css selector", ".ask-why").text.startswith("Why")
        row.find_element("css selector", ".ask-why").click()
        picked = row.find_element("css selector", ".name").text
        page.until(lambda: f"the similarity of {picked} falls" in page.text("#why-parts"))
        assert page.one("#why-class").get_attribute("value") == picked
        assert page.run(canvas) != plain
        page.type_classes(*classes, "another")  # other scores: the explanation was of those before
        page.bars()
        assert (page.text("#why-ask"), page.run(canvas)) == ("Explain", plain)
        assert page.console() == []


def test_times_and_classes_are_what_was_sent(browser, tmp_path):
    ecg = synthetic_ecg(4, duration_s=30)
    ecg.signal_mv[7, :1000] = 0.0  # V2 is flat in the first window
    late = Ecg(ecg.signal_mv[:, :2996], ecg.leads, 100.0)
    (tmp_path / "late.json").write_text(json.dumps(json_ecg(late)))
    with plain_server(make_bundle(tmp_path)) as (client, _):
        page = browser.open(str(client.base_url))
        page.type_classes("infarction, anterior")  # one class on one line
        page.choose(tmp_path / "late.json")
        assert list(page.bars()) == ["infarction, anterior"]
        assert page.text("#class-count") == "1"
        assert "from 0:10 to 0:20" in page.text("#caption")
        page.until(lambda: "0:30 in 2 windows" in page.text("#timeline-about"))
        assert page.console() == []


@pytest.mark.parametrize("names", [("ecg.json",), ("ecg.zip",), ("ecg.hea", "ecg.dat")], ids="+".join)
def test_chosen_files_are_scored(page, record, names):
    page.type_classes("sinus rhythm", "atrial fibrillation")
    page.choose(*(record / name for name in names))
    assert set(page.bars()) == {"sinus rhythm", "atrial fibrillation"}
    assert page.text("#source-name") == " + ".join(names)


def test_a_dropped_file_is_scored(page, record):
    page.type_classes("sinus rhythm", "atrial fibrillation")
    page.run(DROP, "dropped.json", (record / "ecg.json").read_text())
    assert set(page.bars()) == {"sinus rhythm", "atrial fibrillation"}
    assert not page.one("#drop").is_displayed()


def test_what_cannot_be_used_is_said_in_words(page, record):
    page.choose_example()
    page.bars()
    flat = json.loads((record / "ecg.json").read_text())
    flat["signal"][11] = [0.0] * len(flat["signal"][11])
    (record / "flat.json").write_text(json.dumps(flat))
    (record / "broken.zip").write_bytes(b"no zip")
    (record / "notes.pdf").write_bytes(b"%PDF-1.4")
    for names, words in (
        (["flat.json"], "V6"),
        (["broken.zip"], "zip"),
        (["notes.pdf"], "no format"),
        (["ecg.hea"], ".dat"),
    ):
        page.choose(*(record / name for name in names))
        page.until(lambda words=words: words in page.text("#source-problem"))
        assert page.find("#bars li") == [], "scores of the ECG before"
    page.choose(record / "ecg.json")
    page.bars()
    assert page.text("#source-problem") == ""


@pytest.mark.parametrize("name", ["ecg.csv", "ecg.npy"])
def test_unit_and_rate_are_asked_for_and_never_guessed(page, record, name):
    page.type_classes("sinus rhythm", "atrial fibrillation")
    page.requests()
    page.choose(record / name)
    page.until(lambda: page.one("#facts-form").is_displayed())
    assert [page.one(field).get_attribute("value") for field in ("#unit", "#rate", "#leads")] == ["", "", ""]
    page.one("#facts-form .primary").click()
    Select(page.one("#unit")).select_by_value("mV" if name == "ecg.csv" else "uV")
    page.one("#facts-form .primary").click()
    assert page.requests() == [], "sent before unit and rate were there"
    page.one("#rate").send_keys("100")
    if name == "ecg.npy":
        assert "12 × 1000, int16" in page.text("#facts-content")
        page.one("#facts-form .primary").click()
        assert page.requests() == [], "sent before the leads were there"
        page.one("#usual-leads").click()
    page.one("#facts-form .primary").click()
    assert set(page.bars()) == {"sinus rhythm", "atrial fibrillation"}
    assert not page.one("#facts-form").is_displayed()
    page.one("#change-facts").click()
    assert page.one("#rate").get_attribute("value") == "100"


def test_several_ecgs_are_a_list_that_the_keyboard_goes_through(page, record):
    flat = json.loads((record / "ecg.json").read_text())
    flat["signal"][11] = [0.0] * len(flat["signal"][11])
    (record / "flat.json").write_text(json.dumps(flat))
    (record / "ecg.atr").write_bytes(b"annotations")
    page.type_classes("sinus rhythm", "atrial fibrillation")
    page.choose(*(record / name for name in ("ecg.dat", "ecg.json", "flat.json", "ecg.zip", "ecg.hea", "ecg.atr")))
    first = page.bars()
    names = ["ecg.hea + ecg.dat", "ecg.json", "flat.json", "ecg.zip"]
    assert [(name, is_shown) for name, _, is_shown in page.records()] == [(name, name == names[0]) for name in names]
    page.until(lambda: page.records()[0][1])
    assert page.records()[0][1].split(" 0.")[0] in first
    page.press(Keys.ARROW_DOWN)
    page.until(lambda: page.records()[1][2] and page.records()[1][1])
    page.press(Keys.ARROW_DOWN)
    assert "V6" in page.problem("source-problem")
    assert page.find("#bars li") == []
    page.until(lambda: page.records()[2][1] == "cannot be used")
    page.requests()
    page.press(Keys.HOME)
    assert page.bars() == first
    assert page.text("#source-name") == names[0]
    page.press(Keys.ARROW_DOWN, times=2)
    assert "V6" in page.problem("source-problem")
    assert page.requests() == [], "what is kept was asked for again"
    page.type_classes("one", "two")
    assert {state for _, state, _ in page.records()} == {"", "cannot be used", "scored with other words or options"}
    page.press(Keys.ARROW_UP)
    assert set(page.bars()) == {"one", "two"}
    page.press(Keys.DELETE)
    page.until(lambda: len(page.records()) == 3)
    page.run(DROP, "more.json", (record / "ecg.json").read_text())
    page.until(lambda: page.records()[-1][2] and page.records()[-1][0] == "more.json")
    page.one("#remove-all").click()
    assert page.records() == []
    assert page.one("#empty").is_displayed()


def test_the_list_is_bounded(page, record):
    text = (record / "ecg.json").read_text()
    for number in range(42):
        (record / f"{number}.json").write_text(text)
    page.type_classes("sinus rhythm", "atrial fibrillation")
    page.choose(*(record / f"{number}.json" for number in range(42)))
    assert "2 of 42 ECGs were not opened" in page.problem("list-problem")
    assert len(page.records()) == 40
    page.bars()
    page.one("#remove").click()
    page.run(DROP, "more.json", text)
    page.until(lambda: page.records()[-1][0] == "more.json")
    assert len(page.records()) == 40
    assert page.text("#list-problem") == ""


def test_calipers_measure_what_is_drawn(page, served):
    page.choose_example()
    page.bars()
    assert not page.one("#calipers").is_displayed()
    page.one("#calipers-on").click()
    first, second = page.one("#mark-a"), page.one("#mark-b")
    first.click()
    page.press(Keys.HOME)
    second.click()
    page.press(Keys.HOME)
    page.press(Keys.ARROW_RIGHT, times=20, shift=True)
    page.press(Keys.ARROW_UP, times=5, shift=True)
    page.press(Keys.ARROW_LEFT, times=5)
    assert page.text("#caliper-readout") == "750 ms (18.8 mm), 80 bpm; +0.50 mV (+5.0 mm) in II."
    assert "II at 0.750 s, 0.50 mV. 750 ms" in second.get_attribute("aria-valuetext")
    apart = second.location["x"] - first.location["x"]
    Select(page.one("#speed")).select_by_value("50")
    Select(page.one("#gain")).select_by_value("20")
    assert page.text("#caliper-readout") == "750 ms (37.5 mm), 80 bpm; +0.50 mV (+10.0 mm) in II."
    assert second.location["x"] - first.location["x"] == pytest.approx(2 * apart, abs=2)
    assert "50 mm/s" in page.text("#caption")
    for select, value in (("#speed", "25"), ("#gain", "10")):
        Select(page.one(select)).select_by_value(value)

    page.drag(page.one("#paper"), (300, 60), (80, 0))
    millimetre_px = apart / 18.75
    found = page.text("#caliper-readout")
    assert int(found.split()[0]) == pytest.approx(80 / millimetre_px * 40, abs=25)
    page.press(Keys.PAGE_DOWN)
    assert "no amplitude between two leads" in page.text("#caliper-readout")
    page.press(Keys.ESCAPE)
    assert not page.one("#calipers").is_displayed()


def test_a_mark_set_by_its_numbers_lies_on_the_trace(page, served):
    page.choose_example()
    page.bars()
    example = json.loads(example_json("afib", 10.0))
    ecg = page.run(
        """
        const form = new FormData();
        form.append("file", new File([JSON.stringify(arguments[0])], "ecg.json"));
        return fetch("v1/ecg", { method: "POST", body: form }).then((answer) => answer.json());
        """,
        example,
    )
    assert ecg["highpass_hz"] == 0.5
    lead = np.array(ecg["signal_uv"][1])
    peak = 100 + int(lead[100:300].argmax())  # in the second and third second
    height_mv = (lead[peak] - np.sort(lead)[len(lead) // 2]) / 1000
    page.one("#calipers-on").click()
    page.one("#mark-a").click()
    page.press(Keys.HOME)
    page.press(Keys.ARROW_RIGHT, times=peak // 4, shift=True)
    page.press(Keys.ARROW_RIGHT, times=peak % 4)
    steps = round(height_mv / 0.02)
    page.press(Keys.ARROW_UP, times=steps // 5, shift=True)
    page.press(Keys.ARROW_UP, times=steps % 5)
    is_on_trace = page.run("""
        const paper = document.getElementById("paper"), box = paper.getBoundingClientRect();
        const mark = document.getElementById("mark-a").getBoundingClientRect();
        const ratio = paper.width / box.width, radius = 2;
        const [x, y] = [(mark.left + mark.right) / 2 - box.left, (mark.top + mark.bottom) / 2 - box.top];
        const hex = getComputedStyle(paper).getPropertyValue("--trace").trim();
        const ink = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
        const { data } = paper.getContext("2d").getImageData((x - radius) * ratio, (y - radius) * ratio,
          (2 * radius + 1) * ratio, (2 * radius + 1) * ratio);
        const pixels = Array.from({ length: data.length / 4 }, (_, i) => data.slice(4 * i, 4 * i + 3));
        return pixels.some((pixel) => ink.every((value, k) => Math.abs(pixel[k] - value) < 60));
        """)
    assert is_on_trace


def test_the_paper_can_be_enlarged_within_its_frame(page):
    page.choose_example()
    page.bars()
    size = "const paper = document.getElementById('paper'); return [paper.clientWidth, paper.width];"
    before, _ = page.run(size)
    page.run("const zoom = document.getElementById('zoom'); zoom.value = 300; zoom.dispatchEvent(new Event('input'));")
    after, pixels = page.run(size)
    assert after == pytest.approx(3 * before, rel=0.02)
    assert pixels <= 12_000
    assert page.text("#zoom-value") == "300 %"
    assert page.run("return document.documentElement.scrollWidth") <= 1280
    assert page.one("#paper-scroll").get_attribute("tabindex") == "0"
    assert page.run(COUNT_INK) > 3000


def test_the_address_holds_the_settings_and_never_the_ecg(page, served, record):
    page.type_classes("long qt", "short qt & more")
    page.choose(record / "ecg.json")
    page.bars()
    page.one("#multi-label").click()
    page.until(lambda: "softmax" in page.text("#scores-about"))
    Select(page.one("#speed")).select_by_value("50")
    page.run("const zoom = document.getElementById('zoom'); zoom.value = 150; zoom.dispatchEvent(new Event('input'));")
    page.one("#copy-link").click()
    page.until(lambda: "without the ECG" in page.text("#copied"))
    address = page.driver.current_url
    assert address == f"{served.url}/#class=long+qt&class=short+qt+%26+more&softmax=1&speed=50&zoom=1.5"

    page.driver.get("about:blank")
    page.open(address)
    page.choose_example()
    page.until(lambda: set(page.bars()) == {"long qt", "short qt & more"})
    assert sum(page.bars().values()) == pytest.approx(1)
    assert "50 mm/s" in page.text("#caption")
    assert page.text("#zoom-value") == "150 %"
    assert page.text("#link-problem") == ""

    page.run("location.hash = 'set=descriptive:synthetic@5&gain=20'")
    page.until(lambda: "STE_ANT" in page.bars())
    assert "20 mm/mV" in page.text("#caption")
    assert "25 mm/s" in page.text("#caption")
    for fragment, words in (
        ("set=absent@1", "no prompt set “absent@1”"),
        ("set=../../etc@1&class=kept", "“set”"),
        ("speed=1e9&gain=11&zoom=99&class=kept", "“gain”"),
        ("class=" + "x" * 501 + "&class=kept", "“class”"),
        ("class=" + "x" * 13_000, "too long"),
    ):
        page.run("location.hash = arguments[0]", fragment)
        page.until(lambda words=words: words in page.text("#link-problem"))
        if "kept" in fragment:
            page.until(lambda: set(page.bars()) == {"kept"})
    assert page.driver.current_url == f"{served.url}/"


def test_the_colours_can_be_chosen_and_are_kept(page, served):
    is_dark = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((part) => part < 64)"
    assert not page.run(is_dark)
    Select(page.one("#theme")).select_by_value("dark")
    assert page.run(is_dark)
    page.driver.refresh()
    page.until(lambda: page.find("#model-facts dd"))
    assert page.run(is_dark)
    assert page.one("#theme").get_attribute("value") == "dark"
    assert page.run("return Object.keys(localStorage)") == ["mets_ray_theme"]
    Select(page.one("#theme")).select_by_value("")
    assert not page.run(is_dark)
    assert page.run("return localStorage.length") == 0


def choose_npy(page, path):
    page.choose(path)
    page.until(lambda: page.one("#facts-form").is_displayed())
    Select(page.one("#unit")).select_by_value("uV")
    page.one("#rate").send_keys("100")
    page.one("#usual-leads").click()
    page.one("#facts-form .primary").click()
    page.until(lambda: "windows scored" in page.text("#strip-text"))


def test_scores_over_time_of_a_long_recording(page, tmp_path):
    seconds = 600  # more than any other request may hold
    parts = [synthetic_ecg(index).signal_mv for index in range(seconds // 10)]
    signal_uv = np.rint(np.concatenate(parts, axis=1) * 1000).astype(np.int16)
    signal_uv[7, 30_000:31_000] = 0  # V2, from 5:00 to 5:10
    (tmp_path / "long.npy").write_bytes(npy(signal_uv))
    (tmp_path / "minute.npy").write_bytes(npy(signal_uv[:, :6000]))
    page.type_classes("sinus rhythm", "atrial fibrillation")

    choose_npy(page, tmp_path / "long.npy")
    assert "59 of 60 windows scored; left out: 1 flat_lead" in page.text("#strip-text")
    assert set(page.bars()) == {"sinus rhythm", "atrial fibrillation"}  # of the first window
    assert "from 0:00 to 0:10" in page.text("#scores-about")
    first = page.run(COUNT_INK)
    strip = page.one("#strip")
    page.run("arguments[0].scrollIntoView()", strip)
    ActionChains(page.driver).move_to_element_with_offset(strip, strip.size["width"] // 2 - 3, -15).click().perform()
    page.until(lambda: "from 9:50 to 10:00" in page.text("#scores-about"))
    assert page.run(COUNT_INK) != first
    assert "from 9:50 to 10:00" in page.text("#caption")
    keys = [Keys.HOME, *[Keys.PAGE_UP] * 5]  # to the middle, which was left out
    ActionChains(page.driver).send_keys(*keys).perform()
    page.until(lambda: "all samples are equal in V2" in page.text("#caption"))
    assert strip.get_attribute("aria-valuenow") == "31"
    assert page.find("#bars li") == []
    ActionChains(page.driver).send_keys(Keys.ARROW_LEFT).perform()
    page.until(lambda: "from 4:50 to 5:00" in page.text("#scores-about"))
    page.type_classes("pacemaker rhythm", "sinus rhythm", "atrial fibrillation")
    page.until(lambda: len(page.bars()) == 3 and "from 4:50" in page.text("#scores-about"))
    kept = "return document.querySelector('#record-list .record-state').textContent"
    page.until(lambda: page.run(kept) == "59 of 60 windows scored")

    choose_npy(page, tmp_path / "minute.npy")
    about = page.text("#scores-about")
    assert "from" not in about  # the mean of six windows
    mean = page.bars()
    page.until(lambda: "6 of 6" in page.text("#strip-text"))
    page.one("#strip").send_keys(Keys.END)
    page.until(lambda: "from 0:50 to 1:00" in page.text("#scores-about"))
    assert page.bars() != mean
    page.one("#whole").click()
    assert page.bars() == mean
    page.choose_example()
    page.until(lambda: not page.one("#timeline").is_displayed())
    page.bars()
    page.requests()
    page.one("#record-list").send_keys(Keys.HOME)
    page.until(lambda: "from 4:50 to 5:00" in page.text("#scores-about"))
    assert "59 of 60 windows scored" in page.text("#strip-text")
    page.press(Keys.ARROW_DOWN)
    assert page.bars() == mean
    assert "6 of 6" in page.text("#strip-text")
    assert page.requests() == [], "what is kept was asked for again"
    faults = [words for words in page.console() if "getImageData" not in words]
    assert len(faults) == 1, faults
    assert "/v1/ecg" in faults[0]  # which refused ten minutes


CREDIT = "PTB-XL (CC BY 4.0), shortened for this test"


def add_examples(bundle):
    """Two ECGs beside the bundle, as real ones lie there."""
    folder = bundle / "examples"
    folder.mkdir()
    for number, name in enumerate(("one", "two")):
        ecg = synthetic_ecg(number + 5)
        wfdb.wrsamp(
            name, fs=100, units=["mV"] * 12, sig_name=list(ecg.leads), p_signal=ecg.signal_mv.T, fmt=["16"] * 12,
            write_dir=folder,
        )  # fmt: skip
    listed = [
        {"record": "one", "finding": "sinus rhythm", "title": "Sinus rhythm (1)"},
        {"record": "two", "finding": "atrial fibrillation", "title": "Atrial fibrillation (2)"},
    ]
    (folder / "examples.json").write_text(json.dumps({"credit": CREDIT, "examples": listed}))


def print_page(page):
    """The page as a PDF."""
    settings = {"printBackground": False, "preferCSSPageSize": True}
    return base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", settings)["data"])


def test_real_examples_come_first_and_a_result_fits_one_printed_page(browser, tmp_path):
    bundle = make_bundle(tmp_path)
    add_examples(bundle)
    with plain_server(bundle) as (client, _):
        page = browser.open(str(client.base_url))
        page.until(lambda: page.one("#empty-examples").is_displayed())
        assert [button.text for button in page.find("#empty-examples .choices button")] == [
            "Sinus rhythm", "Atrial fibrillation",
        ]  # fmt: skip
        assert page.text("#empty-examples-credit") == CREDIT
        groups = page.run("return [...document.querySelectorAll('#example optgroup')].map((group) => group.label)")
        assert groups == [CREDIT, "Synthetic ECGs"]
        assert page.faults() == []
        page.one("#all-examples").click()
        assert set(page.bars()) == {"sinus rhythm", "atrial fibrillation"}
        assert [name for name, _, _ in page.records()] == ["Sinus rhythm (1)", "Atrial fibrillation (2)"]
        assert page.text("#credit") == f"ECG: {CREDIT}"
        assert "as the model sees it: 100 Hz, zero-phase high-pass at 0.5 Hz" in page.text("#caption")

        Select(page.one("#theme")).select_by_value("dark")
        document = print_page(page)
        assert document.count(b"/Type /Page\n") == 1
        (box,) = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", document)
        assert [float(side) for side in box] == pytest.approx([842, 595], abs=1)
        sheet = page.one("#sheet").get_attribute("textContent")
        model = client.get("/v1/model").json()
        for words in (
            "not a medical device", "synthetic ECGs", model["model_version"], f"mets_ray {model['package_version']}",
            "classes as typed", "each class by itself", CREDIT, f"{datetime.now():%Y-%m-%d}", "true size",
        ):  # fmt: skip
            assert words in sheet
        assert "Sinus rhythm (1)" not in sheet
        assert page.run(COUNT_INK.replace('"paper"', '"sheet-paper"')) > 10_000
        Select(page.one("#list")).select_by_value("descriptive:synthetic@5")
        page.until(lambda: "STE_ANT" in page.bars())
        print_page(page)
        assert "prompt set descriptive:synthetic@5" in page.one("#sheet-versions").get_attribute("textContent")
        assert len(page.find("#sheet-bars li")) == 12
        page.one("#remove-all").click()
        assert print_page(page).count(b"/Type /Page\n") >= 1
        assert not page.find("body.has-sheet")
        assert page.console() == []


def test_a_calibrated_prompt_set_has_its_threshold_in_the_bar(browser, tmp_path):
    bundle = with_heads(make_bundle(tmp_path), tmp_path, "linear")
    example = json.loads(example_json("afib", 10.0))
    ecg = Ecg(np.array(example["signal"]) / 1000, tuple(example["leads"]), example["sampling_rate_hz"])
    write_file(bundle, made_up_file(bundle, ecg=ecg))
    read = """
    const box = (row, css) => row.querySelector(css).getBoundingClientRect();
    const show = (row, css) => getComputedStyle(row.querySelector(css)).display !== "none";
    return [...document.querySelectorAll("#bars li")].map((row) => {
      const track = box(row, ".track"), place = (x) => (x - track.left) / track.width;
      return { name: row.querySelector(".name").textContent, value: row.querySelector(".value").textContent,
        verdict: row.querySelector(".verdict").textContent, hasThreshold: show(row, ".threshold"),
        threshold: place((box(row, ".threshold").left + box(row, ".threshold").right) / 2),
        interval: [place(box(row, ".interval").left), place(box(row, ".interval").right)] };
    });
    """
    with plain_server(bundle) as (client, _):
        page = browser.open(str(client.base_url))
        page.until(lambda: page.find("#list option[value='descriptive:synthetic@5']"))
        Select(page.one("#list")).select_by_value("descriptive:synthetic@5")
        page.choose_example()
        page.bars()
        body = {"ecg": example, "prompt_set": "descriptive:synthetic", "multi_label": True}
        answer = client.post("/v1/zero-shot", json=body).json()
        rows = page.run(read)
        # The page shows what the API answers, with the likeliest class first and the one without calibration last.
        known = [row for row in answer["classes"] if row["probability"] is not None]
        known.sort(key=lambda row: -row["probability"])
        assert [row["name"] for row in rows] == [*(row["class_name"] for row in known), RARE]
        assert (rows[-1]["verdict"], rows[-1]["hasThreshold"]) == ("not calibrated", False)
        for shown, row in zip(rows, known, strict=False):
            assert shown["value"] == f"probability {row['probability']:.3f}"
            assert shown["threshold"] == pytest.approx(row["threshold"], abs=0.02)
            assert shown["interval"] == pytest.approx(row["probability_interval"], abs=0.02)
            assert shown["verdict"].startswith("present" if row["present"] else "not present")
        assert "threshold" in page.text("#scores-about")
        assert page.faults() == []
        print_page(page)
        on_paper = page.find("#sheet-bars .calibrated")
        assert len(on_paper) == 11
        assert "threshold" in on_paper[0].get_attribute("textContent")
        assert "11 of 12 classes, on 150 synthetic patients, thresholds by best_f1" in page.text("#model-facts")
        page.one("#multi-label").click()
        page.until(lambda: "softmax" in page.text("#scores-about"))
        page.bars()
        assert not any(row["hasThreshold"] or row["verdict"] for row in page.run(read))
        page.look(360)
        assert page.run("return document.documentElement.scrollWidth") <= 360
        check_head(page, client, example)
        assert page.console() == []


def check_head(page, client, example):
    """A head of the bundle stands among the lists of classes, and the page shows what /v1/predict answers."""
    Select(page.one("#list")).select_by_value("head/linear")
    page.until(lambda: "by the head linear" in page.text("#scores-about"))
    answer = client.post("/v1/predict", json={"ecg": example, "head": "linear"}).json()
    assert page.bars() == pytest.approx({row["class_name"]: row["score"] for row in answer["classes"]}, abs=1e-6)
    assert "not calibrated: calibrations are for words" in page.text("#scores-about")
    assert page.text("#stored-note").startswith("This head (linear) learnt from 20 labelled synthetic ECGs.")
    assert not any(page.one(css).is_displayed() for css in ("#multi-label", "#why", "#bars .ask-why", "#edit-stored"))
    assert page.faults() == []
    page.until(lambda: page.run("return location.hash") == "#head=linear")
    page.open(f"{client.base_url}/#head=linear")
    page.run("location.reload()")
    page.until(lambda: page.one("#list").get_attribute("value") == "head/linear")
    page.choose_example()
    assert len(page.bars()) == 3
    page.open(f"{client.base_url}/#head=other")
    page.until(lambda: "this model has no head “other”" in page.text("#link-problem"))


def test_a_saved_prompt_set_shows_its_version_and_can_be_chosen(page):
    page.choose_example()
    page.bars()
    page.type_classes("sinus rhythm", "atrial fibrillation")
    page.one("#save-name").send_keys("page-rhythms")
    for labels, words in (
        ((), "Saved as page-rhythms@1."),
        ((), "Unchanged: this is page-rhythms@1."),
        (("sinus rhythm", "afib"), "Saved as page-rhythms@2."),
    ):
        if labels:
            page.type_classes(*labels)
        page.one("#save-form button").click()
        page.until(lambda words=words: page.text("#saved") == words)
    page.until(lambda: page.find("#list option[value='page-rhythms@2']"))
    Select(page.one("#list")).select_by_value("page-rhythms@2")
    page.until(lambda: "page-rhythms@2" in page.text("#run-facts"))
    assert set(page.bars()) == {"sinus rhythm", "afib"}
    assert not page.one("#labels").is_displayed()
    Select(page.one("#list")).select_by_value("descriptive:synthetic@5")
    assert "STE_ANT" in page.bars()
    page.one("#edit-stored").click()
    page.one("#save-name").clear()
    page.one("#save-name").send_keys("descriptive")
    page.one("#save-form button").click()
    assert "descriptive" in page.problem("save-problem")


def test_the_keyboard_is_enough(page):
    def press(*keys):
        ActionChains(page.driver).send_keys(*keys).perform()

    def tab_to(element_id):
        for _ in range(40):
            press(Keys.TAB)
            focused = page.run("return document.activeElement.id")
            look = "const s = getComputedStyle(arguments[0]); return s.outlineStyle !== 'none' && s.outlineWidth"
            shown = page.one("#files + label") if focused == "files" else page.driver.switch_to.active_element
            assert page.run(look, shown), f"focus on {focused or shown.text} cannot be seen"
            if focused == element_id:
                return
        raise AssertionError(f"Tab never comes to {element_id}")

    page.until(lambda: page.find("#example option[value=afib]"))
    tab_to("files")
    tab_to("example")
    press("Atrial")
    press(Keys.ENTER)
    page.until(lambda: page.one("#example").get_attribute("value") == "afib")
    page.bars()
    tab_to("labels")
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    press("long qt", Keys.ENTER, "short qt")
    page.until(lambda: set(page.bars()) == {"long qt", "short qt"})
    page.until(lambda: "long qt" in page.one("#announce").get_attribute("textContent"))
    press(Keys.TAB)
    while page.run("return document.activeElement.tagName") != "SUMMARY":
        press(Keys.TAB)
    press(Keys.ENTER)
    tab_to("multi-label")
    press(Keys.SPACE)
    page.until(lambda: "softmax" in page.text("#scores-about"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_it_fits_the_screen_and_the_colour_scheme(browser, served, record, width, scheme):
    browser.look(width, scheme=scheme)
    page = browser.open(served.url)
    content_width = "return document.documentElement.scrollWidth"
    assert page.run(content_width) <= width
    page.choose(record / "ecg.npy")
    page.until(lambda: page.one("#facts-form").is_displayed())
    assert page.run(content_width) <= width
    page.choose_example()
    page.bars()
    page.type_classes("sinus rhythm", "averylongword" * 12)
    page.bars()
    assert page.run(content_width) <= width
    assert page.run(COUNT_INK) > 3000
    background = page.one("body").value_of_css_property("background-color")
    channels = [int(part) for part in background.split("(")[1].split(",")[:3]]
    assert (max(channels) < 64) == (scheme == "dark")


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_axe_finds_nothing_in_any_state(browser, served, record, width, scheme):
    browser.look(width, scheme=scheme)
    page = browser.open(served.url)
    page.until(lambda: page.one("#empty-examples").is_displayed())
    states = {"empty": page.faults()}
    page.choose(record / "ecg.npy")
    page.until(lambda: page.one("#facts-form").is_displayed())
    states["facts"] = page.faults()
    page.type_classes("sinus rhythm", "atrial fibrillation")
    page.choose(record / "ecg.json", record / "ecg.zip")
    page.bars()
    page.one("#calipers-on").click()
    page.one("#advanced summary").click()
    states["result"] = page.faults()
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.one("#template").send_keys("without a place")
    page.problem("template-problem")
    states["problem"] = page.faults()
    page.one("#template").clear()
    signal_uv = np.concatenate([np.rint(synthetic_ecg(index).signal_mv * 1000) for index in range(3)], axis=1)
    (record / "long.npy").write_bytes(npy(signal_uv.astype(np.int16)))
    choose_npy(page, record / "long.npy")
    Select(page.one("#list")).select_by_value("descriptive:synthetic@5")
    page.until(lambda: "3 of 3 windows scored" in page.text("#strip-text") and len(page.bars()) == 12)
    states["timeline"] = page.faults()
    page.run("const zoom = document.getElementById('zoom'); zoom.value = 300; zoom.dispatchEvent(new Event('input'));")
    states["enlarged"] = page.faults()
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert {name: faults for name, faults in states.items() if faults} == {}


def test_a_busy_or_absent_server_is_asked_again_and_then_named(page):
    refuse = """
    const real = window.real ??= fetch;
    window.asked = 0;
    window.fetch = (path, options) => path.startsWith("v1/zero-shot") && window.asked++ < arguments[0]
      ? Promise.resolve(new Response("{}", { status: 503, headers: { "Retry-After": "0" } }))
      : real(path, options);
    """
    page.choose_example()
    page.bars()
    page.run(refuse, 2)
    page.type_classes("one", "two")
    assert set(page.bars()) == {"one", "two"}
    page.run(refuse, 100)
    page.type_classes("three", "four")
    assert "busy" in page.problem("score-problem")
    assert page.run("return window.asked") == 4
    assert page.find("#bars li") == []
    page.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    page.one("#score-problem button").click()
    page.until(lambda: "cannot be reached" in page.text("#score-problem"))
    page.run("window.fetch = window.real")
    page.one("#score-problem button").click()
    assert set(page.bars()) == {"three", "four"}


def test_a_token_is_asked_for_and_kept_for_the_session_only(browser, served, monkeypatch):
    monkeypatch.setenv("METS_RAY_TOKEN", "open sesame")
    with plain_server(served.bundle, auth="bearer") as (client, _):
        page = browser.open(str(client.base_url))
        page.one("#token").send_keys("wrong", Keys.ENTER)
        page.until(lambda: "wrong" in page.text("#token-problem"))
        page.one("#token").send_keys("open sesame", Keys.ENTER)
        page.choose_example()
        assert len(page.bars()) == 12
        assert not page.one("#token-form").is_displayed()
        stored = page.run("return [Object.values(sessionStorage), localStorage.length, document.cookie]")
        assert stored == [["open sesame"], 0, ""]
        page.run("sessionStorage.clear()")


@pytest.fixture(scope="module")
def searched(served, tmp_path_factory):
    """The URL of a server with an archive of 60 ECGs, on Ray Serve beside `served`: a deployment of its own."""
    from ray import serve

    from mets_ray.serve.deployments import build
    from mets_ray.serve.settings import ServeConfig

    archive_uri, _ = scored_archive(tmp_path_factory.mktemp("archive"), served.bundle, records=60)
    config = ServeConfig(
        bundle_uri=str(served.bundle),
        auth="none",
        encoder_cpus=0.25,
        text_cpus=0.25,
        archive_uri=archive_uri,
        archive_cpus=0.25,
        archive_reports=True,
    )
    serve.run(build(config), name="archive", route_prefix="/hospital")
    yield f"{served.url}/hospital"
    serve.delete("archive")


def open_archive_page(page, url):
    page.driver.get(f"{url}/archive")
    page.until(lambda: page.find("#archive-facts dd"))
    return page


def search_words(page, *words):
    """Type each on a line of its own and search; answers the ids that were found."""
    for number, text in enumerate(words):
        if number:
            page.one("#add-term").click()
        page.find("#terms .words")[number].send_keys(text)
    page.press(Keys.ENTER)
    return cards(page)


def cards(page):
    page.until(lambda: page.find("#results:not(.stale) .card"))
    return [card.text for card in page.find(".card-facts strong")]


def ink_of(page, canvas):
    return page.run(COUNT_INK.replace('getElementById("paper")', f'querySelector("{canvas}")'))


def test_an_archive_is_searched_and_a_list_of_it_exported(browser, searched, tmp_path):
    page = open_archive_page(browser, searched)
    download = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", download)
    assert page.text("header").count("not a medical device") == 1
    assert "not diagnosis" in page.text("#notice")
    found = search_words(page, "atrial fibrillation", "sinus rhythm")
    assert len(found) == 24
    assert "of 60 ECGs, by similarity to “atrial fibrillation”, “sinus rhythm”" in page.text("#results-about")
    page.until(lambda: ink_of(page, ".thumb canvas") > 500)
    assert page.until(lambda: page.text(".card .report"))
    page.find("#terms .not")[1].click()
    page.one("#search").click()
    page.until(lambda: "not “sinus rhythm”" in page.text("#results-about"))
    assert cards(page) != found

    first = page.one(".thumb")
    ActionChains(page.driver).move_to_element(first).perform()
    page.until(lambda: page.one("#peek").is_displayed())
    assert ink_of(page, "#peek-paper") > 2000
    page.press(Keys.ESCAPE)
    assert not page.one("#peek").is_displayed()

    found = cards(page)
    page.run("arguments[0].focus()", first)
    page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ENTER)
    page.until(lambda: page.text("#viewer-heading") == f"ECG {found[1]}")
    page.until(lambda: ink_of(page, "#viewer-paper") > 3000)
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: page.text("#viewer-heading") == f"ECG {found[2]}")
    page.one("#viewer-add").click()
    page.press(Keys.ESCAPE)
    assert page.run("return document.activeElement.className") == "thumb"
    page.find(".card .add")[0].click()
    assert [row.text for row in page.find("#list .open")] == [found[2], found[0]]

    page.one("#export").click()
    exported = tmp_path / "ecg-ids.csv"
    page.until(exported.exists)
    lines = exported.read_text().split()
    assert lines[0] == "record_id,patient_id,source"
    assert [line.split(",")[0] for line in lines[1:]] == [found[2], found[0]]

    page.one("#above").clear()
    page.one("#above").send_keys("-1")
    page.one("#cohort-form button").click()
    page.until(lambda: page.text("#cohort-count").startswith("60 ECGs of "))
    page.one("#cohort-save").click()
    page.until((tmp_path / "ecg-cohort.csv").exists)
    assert len((tmp_path / "ecg-cohort.csv").read_text().split()) == 61

    page.one(".card-tools button").click()
    page.until(lambda: f"the ECG {found[0]}" in page.text("#results-about"))
    assert found[0] not in cards(page)
    assert len(page.find("#report-list li")) == 3
    assert "no diagnosis" in page.text("#reports-note")
    page.one("#where").send_keys("bmi > 3")
    page.one("#search").click()
    assert "bmi" in page.problem("search-problem")
    assert page.find(".card") == []
    assert [entry for entry in page.console() if "422" not in entry] == []
    assert [url for url in page.requests() if not url.startswith((searched, "data:", "blob:"))] == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_axe_finds_nothing_on_the_page_of_an_archive(browser, searched, width, scheme):
    browser.look(width, scheme=scheme)
    page = open_archive_page(browser, searched)
    states = {"empty": page.faults()}
    search_words(page, "atrial fibrillation", "averylongword" * 12)
    page.until(lambda: ink_of(page, ".thumb canvas") > 300)
    page.one(".card .add").click()
    page.one("#others summary").click()
    states["results"] = page.faults()
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.one(".thumb").click()
    page.until(lambda: ink_of(page, "#viewer-paper") > 2000)
    states["viewer"] = page.faults()
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.press(Keys.ESCAPE)
    page.one("#where").send_keys("bmi > 3")
    page.one("#search").click()
    page.problem("search-problem")
    states["problem"] = page.faults()
    assert {name: faults for name, faults in states.items() if faults} == {}
