"""The operator's page in Chromium: everything an operator does, in three languages."""

import re

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from drivers.value import BAD_CONNECTION_CLOSED, BAD_CONNECTION_REJECTED, STATUS_NAMES
from edge import record
from tests.served import Served, record_of_one, wait_for

pytestmark = pytest.mark.browser
expect.set_options(timeout=15_000)

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FILL = "[data-recipe=rinse-and-fill]"
TITLES = {"en": "Rinse and fill", "fr": "Rincer et remplir", "ar": "الشطف والتعبئة"}
STATES = {
    "en": {"running": "Running", "held": "Held", "aborted": "Aborted", "complete": "Complete"},
    "fr": {"running": "En marche", "held": "Maintenu", "aborted": "Abandonné", "complete": "Terminé"},
    "ar": {"running": "قيد التشغيل", "held": "معلَّق", "aborted": "ملغى فورًا", "complete": "مكتمل"},
}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def profiles(browser: Browser):
    """One browser profile for each language; what it keeps is cleared after each test."""
    found: dict[str, BrowserContext] = {}

    def profile(language: str) -> BrowserContext:
        if language not in found:
            found[language] = browser.new_context(locale=language)
            found[language].set_default_timeout(15_000)
        return found[language]

    yield profile
    for context in found.values():
        context.close()


@pytest.fixture
def visit(profiles, served: Served):
    """Opens the page, as an operator with a name; at the end no page may have had an error of its own."""
    pages, faults = [], []

    def open_page(language: str = "en", width: int = 1280, name: str = "Amina") -> Page:
        page = profiles(language).new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        page.goto(served.url)
        page.locator("main").wait_for()
        if name:
            page.locator("input[name=operator]").fill(name)
        return page

    yield open_page
    for page in pages:
        page.evaluate("localStorage.clear()")
        page.close()
    assert faults == []


def start(page: Page, **parameters: str) -> None:
    page.locator(f"{FILL} > button").click()
    for name, text in parameters.items():
        page.locator(f"{FILL} [name={name}]").fill(text)
    page.locator(f"{FILL} button[type=submit]").click()


def state(page: Page, name: str) -> None:
    expect(page.locator(f".batch[data-state={name}] .state.large")).to_be_visible()


def test_an_operator_runs_a_batch(visit, served):
    page = visit()
    expect(page.locator(".line")).to_have_text("Live")
    expect(page.locator("h1")).to_have_text("bottling")
    start(page, volume="10")
    state(page, "running")
    batch = page.locator(".batch")
    expect(batch.locator("h3")).to_have_text("Rinse and fill")
    expect(batch.locator("[data-step=Fill]")).to_contain_text("of 1:00")
    expect(batch.locator("[data-step=Fill]")).to_contain_text("mixer.level >= volume")
    expect(batch.locator(".facts")).to_contain_text("Volume10 L")
    expect(batch.locator(".way")).to_contain_text("Step 1 / 5")
    expect(batch.locator("[data-tag='mixer.inlet'] .value")).to_contain_text("on")
    served.loop.put(mixer__level=12.0)
    expect(batch.locator("[data-tag='mixer.level'] .value")).to_have_text("12.00 L")
    expect(batch.locator("[data-step='Bring a bottle'] .branch")).to_have_text("bring")
    served.loop.put(conveyor__bottle=True)
    expect(batch.locator(".question .asked")).to_have_text("Is the label straight?")
    batch.locator("[data-answer=no]").click()
    state(page, "complete")
    expect(batch.locator(".question")).to_have_count(0)
    expect(batch.locator(".facts")).to_contain_text("filled12 L")
    expect(page.locator("#spoken-state")).to_have_text("Rinse and fill: Complete")
    assert served.loop.engine.state.batches[batch.get_attribute("data-batch")].by == "Amina"
    batch.locator("[data-command=reset]").click()
    expect(batch).to_have_count(0)
    expect(page.get_by_text("No batch is running.")).to_be_visible()


def test_what_has_ended_stands_below_what_runs(visit, served):
    page = visit()
    ended = served.start_batch()
    served.post(f"/api/batches/{ended}/abort")
    state(page, "aborted")
    start(page)
    state(page, "running")
    shown = [one.get_attribute("data-state") for one in page.locator(".batch").all()]
    assert shown == ["running", "aborted"]


def test_a_parameter_out_of_range_is_refused_in_place(visit, served):
    page = visit()
    start(page, volume="80")
    field = page.locator(f"{FILL} .field", has=page.locator("[name=volume]"))
    expect(field.locator(".wrong")).to_have_text("From 5 to 50 \u2066L\u2069.")
    expect(field.locator("input")).to_have_attribute("aria-invalid", "true")
    expect(field.locator("input")).to_be_focused()
    field.locator("input").fill("abc")
    expect(field.locator(".wrong")).to_have_text("Enter a number.")
    assert served.get("/api/state")["batches"] == {}
    field.locator("input").fill("١٢٫٥")
    page.locator(f"{FILL} button[type=submit]").click()
    state(page, "running")
    ((batch),) = served.get("/api/state")["batches"].values()
    assert batch["parameters"] == {"volume": 12.5, "side": "front", "rinse": True}


def test_a_parameter_that_is_needed_and_a_name_that_is_needed(visit, served):
    page = visit(name="")
    form = page.locator("[data-recipe=changeover]")
    form.locator("> button").click()
    form.locator("[type=submit]").click()
    expect(form.locator(".wrong")).to_have_text("This is needed.")
    form.locator("[name=bottles]").fill("12")
    form.locator("[type=submit]").click()
    expect(form.locator(".fault")).to_contain_text("Enter your name first")
    expect(page.locator("input[name=operator]")).to_be_focused()
    page.keyboard.type("Yacine")
    form.locator("[type=submit]").click()
    state(page, "running")
    page.reload()
    expect(page.locator("input[name=operator]")).to_have_value("Yacine")


def test_what_the_server_refuses_stands_at_the_form(visit, served):
    page = visit()
    page.locator(f"{FILL} > button").click()
    served.loop.put(mixer__level=None)
    page.locator("[data-unit=mixer] summary").click()
    expect(page.locator("[data-unit=mixer] [data-tag='mixer.level']")).to_have_attribute("data-quality", "bad")
    page.locator(f"{FILL} button[type=submit]").click()
    expect(page.locator(f"{FILL} .fault")).to_contain_text("no good value from mixer.level")


def test_commands_are_open_only_where_the_state_allows_them(visit, served):
    page = visit()
    start(page)
    state(page, "running")
    expect(page.locator("[data-step=Fill]")).to_be_visible()

    def possible() -> set[str]:
        found = page.locator(".commands button:not([disabled])").all()
        return {one.get_attribute("data-command") for one in found}

    wait_for(lambda: possible() == {"hold", "pause", "stop", "abort"}, "the commands of a running batch")
    page.locator("[data-command=hold]").click()
    state(page, "held")
    wait_for(lambda: possible() == {"restart", "stop", "abort"}, "the commands of a held batch")
    expect(page.locator(".now")).to_contain_text("by Amina")
    page.locator("[data-command=restart]").click()
    state(page, "running")
    page.locator("[data-command=pause]").click()
    state(page, "pausing")
    page.locator("[data-command=resume]").click()
    state(page, "running")


@pytest.mark.parametrize(("command", "end"), [("stop", "stopped"), ("abort", "aborted")])
def test_stop_and_abort_ask_first(visit, served, command, end):
    page = visit()
    start(page)
    state(page, "running")
    page.locator(f".commands [data-command={command}]").click()
    dialog = page.locator("dialog.confirm")
    expect(dialog).to_be_visible()
    expect(dialog.locator(".back")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.locator(f".commands [data-command={command}]").click()
    dialog.locator(".back").click()
    expect(dialog).to_have_count(0)
    state(page, "running")
    page.locator(f".commands [data-command={command}]").click()
    dialog.locator(f"[data-command={command}]").click()
    state(page, end)


def test_every_kind_of_question(visit, served):
    page = visit()
    served.start_batch("changeover", bottles=12)
    question = page.locator(".question")
    expect(question.locator(".asked")).to_have_text("Is the line clear?")
    question.get_by_role("button", name="Confirm").click()
    expect(question.locator(".asked")).to_have_text("Tare of the bottle")
    question.locator("input").fill("5")
    question.get_by_role("button", name="Send").click()
    expect(question.locator(".wrong")).to_have_text("From 10 to 500 \u2066g\u2069.")
    question.locator("input").fill("20.5")
    question.locator("input").press("Enter")
    expect(question.locator(".asked")).to_have_text("Lot number")
    question.get_by_role("button", name="Send").click()
    expect(question.locator(".wrong")).to_have_text("This is needed.")
    question.locator("input").fill("A-7")
    question.locator("input").press("Enter")
    expect(question).to_have_count(0)
    ((batch),) = wait_for(lambda: served.get("/api/state")["batches"], "the batch").values()
    assert batch["answers"] == {"tare": 20.5, "lot": "A-7"}


LABELS = {"en": ("Release", "Scrap"), "fr": ("Libérer", "Rebuter"), "ar": ("إفراج", "إتلاف")}
AS_ENGINEER = {"en": "I answer as the engineer", "fr": "Je réponds en tant qu’ingénieur", "ar": "أجيب بصفتي المهندس"}


@pytest.mark.parametrize("language", ["en", "fr", "ar"])
def test_a_ramp_then_an_engineer_s_question_then_an_alarm_that_is_waited_for(visit, served, language):
    page = visit(language)
    batch = served.start_batch("release")
    expect(page.locator("[data-step='Speed up']")).to_contain_text("conveyor.speed to 400 mm/s")
    question = page.locator(".question")
    expect(question.locator("[data-answer]")).to_have_text(list(LABELS[language]))
    expect(page.locator(".batch [data-tag='conveyor.speed'] .value")).to_contain_text("400")
    expect(question.locator("[data-answer=scrap]")).to_be_disabled()
    question.get_by_label(AS_ENGINEER[language]).check()
    question.locator("[data-answer=scrap]").click()
    expect(question).to_have_count(0)
    alarm = page.locator("[data-alarm][data-priority=high]")
    expect(alarm.locator(".alarm-text")).to_have_text(served.loop.plan.recipes["release"].steps[2].alarm.say[language])
    expect(page.locator("[data-step=Bin]")).to_be_visible()
    alarm.locator("[data-command=acknowledge]").click()
    state(page, "complete")
    assert served.batch(batch)["answers"] == {"fate": "scrap"}
    expect(page.locator(".events")).to_contain_text(LABELS[language][1])


def test_an_alarm_is_shown_and_acknowledged(visit, served):
    page = visit()
    expect(page.get_by_text("No alarms")).to_be_visible()
    start(page)
    state(page, "running")
    served.loop.put(conveyor__weight=50.0)
    alarm = page.locator("[data-alarm]")
    expect(alarm.locator(".alarm-text")).to_have_text("Scale overloaded")
    expect(page.locator("#spoken-alarm")).to_have_text("Alarm: Scale overloaded")
    state(page, "held")
    expect(page.locator(".cause")).to_have_text("Scale overloaded")
    alarm.get_by_role("button", name="Acknowledge").click()
    expect(alarm).to_have_attribute("data-acknowledged", "yes")
    expect(alarm.get_by_role("button", name="Acknowledge")).to_have_count(0)
    served.loop.put(conveyor__weight=1.0)
    expect(page.get_by_text("No alarms")).to_be_visible()


def test_an_alarm_is_shelved_with_a_reason_and_brought_back(visit, served):
    page = visit()
    start(page)
    state(page, "running")
    served.loop.put(conveyor__weight=50.0)
    alarm = page.locator("[data-alarm]")
    expect(alarm).to_have_attribute("data-priority", "high")
    expect(alarm.locator("strong")).to_have_text("High")
    alarm.get_by_role("button", name="Shelve").click()
    alarm.get_by_role("button", name="Shelve").click()
    expect(alarm.get_by_text("This is needed.")).to_be_visible()
    alarm.get_by_label("Why").fill("scale is being changed")
    alarm.get_by_role("button", name="Shelve").click()
    expect(page.get_by_text("No alarms")).to_be_visible()
    page.get_by_text("Shelved alarms (1)").click()
    expect(alarm.get_by_text("scale is being changed")).to_be_visible()
    alarm.get_by_role("button", name="Bring back").click()
    expect(alarm.get_by_role("button", name="Acknowledge")).to_be_visible()


def test_a_lost_device_shows_no_value_and_says_why(visit, served):
    page = visit()
    served.loop.put(mixer__level=12.0)
    start(page, volume="40")
    level = page.locator(".batch [data-tag='mixer.level']")
    expect(level.locator(".value")).to_have_text("12.00 L")
    served.loop.lose("mixer")
    expect(level).to_have_attribute("data-quality", "bad")
    expect(level).to_contain_text("bad: device lost")
    expect(level).not_to_contain_text("12")
    machine = page.locator("[data-unit=mixer]")
    expect(machine.locator(".reason")).to_contain_text("mixer: cannot be reached")
    expect(machine.locator(".reason")).to_contain_text("no answer from 192.168.10.11:102")
    expect(machine.locator(".reason")).to_contain_text("check its power and its cable")
    state(page, "held")
    expect(page.locator(".alarm-text")).to_contain_text("mixer is lost")


@pytest.mark.parametrize(
    ("language", "alarm", "hold"),
    [
        ("fr", "mixer est perdu (mixer.level) : connexion refusée", "maintien par Youssef"),
        ("ar", "انقطع الاتصال مع mixer (mixer.level): رُفض الاتصال", "تعليق بواسطة Youssef"),
    ],
)
def test_reasons_and_causes_are_in_the_operator_s_language(visit, served, language, alarm, hold):
    page = visit(language, name="Youssef")
    start(page)
    state(page, "running")
    page.locator("[data-command=hold]").click()
    state(page, "held")
    served.loop.lose("mixer", "127.0.0.1:102 was closed by the device", BAD_CONNECTION_CLOSED)
    served.loop.lose("mixer", "127.0.0.1:102 refuses the connection", BAD_CONNECTION_REJECTED)
    expect(page.locator(".alarm-text")).to_have_text(alarm)
    detail = page.locator(".alarms .detail bdi")
    expect(detail).to_have_text("127.0.0.1:102 refuses the connection (check its power and its cable)")
    expect(detail).to_have_attribute("dir", "ltr")
    expect(detail).to_have_attribute("lang", "en")
    expect(page.locator("[data-unit=mixer] .reason p")).to_contain_text(alarm.rpartition(": ")[2])
    page.locator("[data-command=restart]").click()
    expect(page.locator(".batch .fault")).to_contain_text(alarm.replace(" (mixer.level)", ""))
    page.locator(".events summary").click()
    expect(page.locator(".events")).to_contain_text(hold)
    english = re.compile("refuses|was closed|hold by|cannot|is lost")
    for part in (".batch", ".events", ".alarm-text"):
        expect(page.locator(part)).not_to_contain_text(english)


def test_every_quality_has_its_word_in_every_language(visit, served):
    page = visit()
    for language in ("fr", "ar"):
        known = page.evaluate(
            f"async () => Object.keys((await import('/web/texts.js')).speak('{language}').t.qualities)"
        )
        assert {name for status, name in STATUS_NAMES.items() if status} - set(known) == set()


def test_the_languages(visit, served):
    page = visit("fr-FR")
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    start(page)
    for language in ("ar", "fr", "en", "ar"):
        page.locator(f".languages [lang={language}]").click()
        expect(page.locator("html")).to_have_attribute("dir", "rtl" if language == "ar" else "ltr")
        expect(page.locator(".batch h3")).to_have_text(TITLES[language])
        expect(page.locator(".batch .state.large")).to_have_text(STATES[language]["running"])
    served.loop.put(conveyor__weight=50.0, mixer__level=3.25)
    expect(page.locator(".alarm-text")).to_have_text("الميزان محمّل أكثر من اللازم")
    expect(page.locator(".cause")).to_have_text("الميزان محمّل أكثر من اللازم")
    level = page.locator(".batch [data-tag='mixer.level'] .quantity")
    expect(level).to_have_text("3.25 L")
    expect(level).to_have_attribute("dir", "ltr")
    page.reload()
    expect(page.locator("html")).to_have_attribute("dir", "rtl")
    expect(page.locator(".batch .state.large")).to_have_text(STATES["ar"]["held"])


def test_the_languages_say_the_same_things(visit, served):
    page = visit()
    shapes = page.evaluate(
        """async () => {
          const { speak } = await import('/web/texts.js');
          const shape = (one) => typeof one === 'object'
            ? Object.fromEntries(Object.entries(one).map(([key, value]) => [key, shape(value)])) : typeof one;
          return ['en', 'fr', 'ar'].map((language) => JSON.stringify(shape({...speak(language).t, qualities: 0})));
        }"""
    )
    assert shapes[0] == shapes[1] == shapes[2]


def test_nothing_stands_out_at_the_side_and_buttons_are_large(visit, served):
    batch = served.start_batch("rinse-and-fill", volume=10)
    served.loop.put(mixer__level=12.0, conveyor__bottle=True)
    wait_for(lambda: served.batch(batch)["questions"], "the question")
    served.loop.lose("mixer", "no answer from a.very.long.name.of.a.machine.in.the.plant.example:102 in 500 ms")
    page = visit()
    expect(page.locator(".alarms li")).to_be_visible()
    page.locator(f"{FILL} > button").click()
    page.locator(".events summary").click()
    for language in ("en", "fr", "ar"):
        page.locator(f".languages [lang={language}]").click()
        expect(page.locator(".batch h3")).to_have_text(TITLES[language])
        for width in (1280, 700, 400, 320):
            page.set_viewport_size({"width": width, "height": 800})
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) <= 0, (language, width)
            heights = "all => all.map(one => one.getBoundingClientRect().height)"
            assert min(page.locator("button:visible").evaluate_all(heights)) >= 44


def test_the_keyboard_is_enough(visit, served):
    page = visit()
    page.locator("input[name=operator]").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('[data-recipe]')?.dataset.recipe") == "rinse-and-fill":
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("10")
    page.keyboard.press("Enter")
    state(page, "running")


def test_a_broken_stream_is_said_at_once_and_mended(visit, served):
    page = visit()
    served.loop.put(mixer__level=12.0)
    start(page, volume="40")
    state(page, "running")
    served.process.kill()
    served.process.wait()
    expect(page.locator(".line")).to_have_text("Connection lost")
    expect(page.locator(".banner")).to_contain_text("not current")
    expect(page.locator("main")).to_have_class(re.compile("stale"))
    level = page.locator(".batch [data-tag='mixer.level'] .value")
    assert level.evaluate("one => getComputedStyle(one).textDecorationLine") == "line-through"
    expect(page.locator(".commands button:not([disabled])")).to_have_count(0)
    served.start()
    expect(page.locator(".line")).to_have_text("Live")
    expect(page.locator(".banner")).to_have_count(0)
    expect(page.locator("main")).not_to_have_class(re.compile("stale"))
    expect(level).to_have_text("12.00 L")


def test_a_silent_loop_is_said(visit, served):
    page = visit()
    served.loop.put(mixer__level=12.0)
    start(page, volume="40")
    state(page, "running")
    served.loop.mute = True
    expect(page.locator(".line")).to_have_text("Control loop silent")
    expect(page.locator(".batch [data-tag='mixer.level'] .value")).to_have_text("—")
    served.loop.mute = False
    expect(page.locator(".line")).to_have_text("Live")


def test_what_people_write_is_text_and_never_markup(visit, served):
    page = visit(name='<img src=x onerror="window.hacked=1">')
    start(page)
    state(page, "running")
    expect(page.locator(".batch header")).to_contain_text('<img src=x onerror="window.hacked=1">')
    assert page.evaluate("window.hacked") is None


def test_the_record_of_an_earlier_batch(visit, served):
    record_of_one(served.state_dir / record.FILE, "earlier", state="complete")
    page = visit("fr")
    page.locator(".history [data-batch=earlier]").click()
    details = page.locator("dialog.details")
    expect(details.locator("h2")).to_contain_text("Rincer et remplir")
    expect(details).to_contain_text("Terminé")
    expect(details).to_contain_text("12,5 L")
    expect(details).to_contain_text("démarré")
    page.keyboard.press("Escape")
    expect(details).to_have_count(0)


def test_two_pages_see_the_same(visit, served):
    one, other = visit(), visit("ar", 400)
    start(one)
    state(other, "running")
    other.locator("[data-command=hold]").click()
    state(one, "held")


def test_a_step_is_confirmed_and_an_output_is_set_by_hand(visit, served):
    page = visit("fr")
    batch = served.start_batch("rinse-and-fill", volume=10)
    card = page.locator(f"[data-batch='{batch}']")
    card.locator("button[data-mode='semi-automatic']").click()
    served.loop.put(mixer__level=12.0)
    confirm = card.locator("[data-confirm]").first
    confirm.wait_for()
    waits = served.batch(batch)["waits"]
    assert waits[0]["name"] in confirm.inner_text()
    confirm.click()
    wait_for(lambda: served.batch(batch)["waits"] != waits, "the step begun")
    card.locator("button[data-mode='manual']").click()
    state(page, "held")
    card.locator("[data-output='mixer.inlet'] [data-value='true']").click()
    wait_for(lambda: served.get("/api/state")["tags"]["mixer.inlet"]["level"] is True, "the level by hand")
    speed = card.locator("[data-output='mixer.agitator']")
    speed.locator("input").fill("301")
    speed.locator("button").click()
    speed.locator("[data-wrong='yes']").wait_for()
    card.locator("button[data-mode='automatic']").click()
    wait_for(lambda: served.get("/api/state")["tags"]["mixer.inlet"]["level"] is False, "the end of manual mode")
