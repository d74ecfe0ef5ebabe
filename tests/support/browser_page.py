"""The page at `/` as a user sees it in a headless Chromium, driven by selenium."""

import json

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from selenium_axe_python import Axe

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
# Pixels of the trace's colour, which is far from the paper's in both colour schemes.
COUNT_INK = """
const canvas = document.getElementById("paper");
const hex = getComputedStyle(canvas).getPropertyValue("--trace").trim();
const ink = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
let count = 0;
for (let i = 0; i < data.length; i += 4) count += ink.every((value, k) => Math.abs(data[i + k] - value) < 60);
return count;
"""
TYPE_CLASSES = """
const area = document.getElementById("labels");
area.value = arguments[0];
area.dispatchEvent(new Event("input"));
return document.getElementById("scores").classList.contains("stale");
"""
DROP = """
const transfer = new DataTransfer();
transfer.items.add(new File([arguments[1]], arguments[0]));
for (const type of ["dragenter", "drop"]) {
  document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}
"""


class Page:
    """The page under test: what a user would look for on it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url):
        self.driver.get(url)
        self.until(lambda: self.find("#model-facts dd") or self.find("#token-form:not([hidden])"))
        return self

    def until(self, condition, seconds=30):
        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def find(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css):
        return self.one(css).text

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def type_classes(self, *labels):
        """Whether the scores that stood there were marked as stale at once."""
        return self.run(TYPE_CLASSES, "\n".join(labels))

    def choose(self, *paths):
        self.one("#files").send_keys("\n".join(str(path) for path in paths))

    def choose_example(self, name="afib"):
        self.until(lambda: self.find(f"#example option[value={name}]"))
        Select(self.one("#example")).select_by_value(name)

    def bars(self):
        """{class: score} of the bars from top to bottom, once they are current."""
        read = """
        if (!document.querySelector("#scores:not(.stale) #bars li")) return null;
        return [...document.querySelectorAll("#bars li")].map(
          (row) => [row.querySelector(".name").textContent, Number(row.dataset.score)]);
        """
        return dict(self.until(lambda: self.run(read)))

    def press(self, *keys, times=1, shift=False):
        chain = ActionChains(self.driver)
        if shift:
            chain.key_down(Keys.SHIFT)
        for _ in range(times):
            chain.send_keys(*keys)
        if shift:
            chain.key_up(Keys.SHIFT)
        chain.perform()

    def drag(self, element, start, by):
        """Press at `start` from the element's upper left corner, move by so many pixels, release."""
        width, height = element.size["width"], element.size["height"]
        chain = ActionChains(self.driver, duration=0)
        chain.move_to_element_with_offset(element, start[0] - width // 2, start[1] - height // 2)
        chain.click_and_hold().move_by_offset(*by).release().perform()

    def records(self):
        """[(name, state, whether it is on display)] of the list of ECGs."""
        read = """
        return [...document.querySelectorAll("#records:not([hidden]) [role=option]")].map((row) => [
          row.querySelector(".record-name").textContent, row.querySelector(".record-state").textContent,
          row.ariaSelected === "true"]);
        """
        return [tuple(row) for row in self.run(read)]

    def faults(self):
        """What axe-core finds in the page as it is: [(rule, element)]."""
        axe = Axe(self.driver)
        axe.inject()
        found = axe.run()["violations"]
        return [(fault["id"], node["html"], node["failureSummary"]) for fault in found for node in fault["nodes"]]

    def problem(self, slot):
        return self.until(lambda: self.text(f"#{slot}"))

    def requests(self):
        """URLs of all requests since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def console(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def look(self, width, height=860, scheme="light"):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2 if width < 600 else 1, "mobile": width < 600},
        )
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
