"""What edge says by itself: in every language, for every StatusCode."""

import inspect

import pytest

from drivers.value import BAD, BAD_ACCESS_DENIED, BAD_TIMEOUT, STATUS_NAMES
from edge.engine import refusals, states, words
from edge.messages import DeviceReport

LANGUAGES = {"en", "fr", "ar"}
OF_NO_NAME = 0x80FE_0000


@pytest.mark.parametrize("status", [status for status in STATUS_NAMES if status & BAD])
def test_every_status_has_its_reason(status: int) -> None:
    found = words.reason(status)
    assert set(found) == LANGUAGES and all(found.values())
    assert found != words.reason(OF_NO_NAME) or status == BAD
    assert found["fr"] in words.device_lost("mixer", "mixer.level", status)["fr"] or status == BAD_ACCESS_DENIED


def test_a_status_without_a_name_is_a_refusal() -> None:
    assert words.reason(OF_NO_NAME | 0x0400)["en"] == "refused by the device"
    assert words.reason(BAD_TIMEOUT | 0x0400) == words.reason(BAD_TIMEOUT)


def test_a_user_who_is_denied_is_one_thing_for_a_session_and_another_for_a_tag() -> None:
    assert words.device_lost("robot", "", BAD_ACCESS_DENIED)["en"] == "robot is lost: user or password refused"
    assert words.tags_refused(["robot.alive"], BAD_ACCESS_DENIED, write=True)["en"].endswith("not permitted")


def test_the_driver_s_own_words_are_a_detail() -> None:
    assert words.detail(DeviceReport(0, False, BAD_TIMEOUT, "no answer", "look")) == "no answer (look)"
    assert words.detail(DeviceReport(0, False, BAD_TIMEOUT, "no answer")) == "no answer"


@pytest.mark.parametrize("room", [words, refusals])
def test_every_text_has_every_language(room) -> None:
    constants = [one for name, one in vars(room).items() if name.isupper() and isinstance(one, dict)]
    texts = [one for one in constants if "en" in one]
    assert texts
    for one in texts:
        assert set(one) == LANGUAGES and all(one.values())


@pytest.mark.parametrize("do", [command for command in states.COMMANDS if command != "start"])
def test_a_command_is_a_cause_in_every_language(do: str) -> None:
    said = words.commanded(do, "Amina")
    assert said["en"] == f"{do} by Amina"
    assert len(set(said.values())) == 3 and all("Amina" in text for text in said.values())


@pytest.mark.parametrize(
    ("low", "high", "english"),
    [(5, 50, "it goes from 5 to 50 L"), (5, None, "it is at least 5 L"), (None, 50, "it is at most 50 L")],
)
def test_a_range(low: float | None, high: float | None, english: str) -> None:
    said = refusals.span(low, high, "L")
    assert said["en"] == english and all("L" in text for text in said.values())
    assert refusals.span(None, None, "L") == {"en": "", "fr": "", "ar": ""}


def test_what_names_something_names_it_in_every_language() -> None:
    """Every function of refusals that only takes texts says them in all languages."""
    tried = 0
    for function in vars(refusals).values():
        if not inspect.isfunction(function) or function.__module__ != refusals.__name__:
            continue
        names = list(inspect.signature(function).parameters)
        if set(names) <= {"name", "unit", "batch", "tag", "recipe"}:
            said = function(*names)
            assert all(name in text for text in said.values() for name in names), function.__name__
            tried += 1
    assert tried >= 6
