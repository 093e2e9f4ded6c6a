"""The review in a real browser, by keys and by touch."""

from __future__ import annotations

PHONE = {"width": 360, "height": 740}


def shows(tab, name):
    """Wait until the image of this name is shown and can be decided."""
    tab.locator("#name", has_text=name).wait_for()
    tab.locator("#skip:not([disabled])").wait_for()
    assert tab.locator("#picture").evaluate("picture => picture.naturalWidth") == 50


def progress(tab):
    return tab.locator("#progress").inner_text()


def press(tab, key, then):
    tab.keyboard.press(key)
    shows(tab, then)


def test_a_person_reviews_with_the_keyboard_alone(opened, reviewing, hard, tmp_path):
    (hard / "e.jpg").write_bytes(b"\xff\xd8torn")
    person = reviewing()
    out = tmp_path / "out"
    tab = opened(person.page.url)
    shows(tab, "c.png")
    assert tab.locator("#guess").inner_text() == "ひび割れ 55.0 %"
    assert tab.locator("#classes .guessed").inner_text().endswith("ひび割れ")
    press(tab, "Enter", "a.png")  # the guess
    assert (out / "ひび割れ" / "c.png").exists()
    press(tab, "2", "sub/b.png")
    assert (out / "hell" / "a.png").exists()
    press(tab, "Backspace", "a.png")
    assert not (out / "hell" / "a.png").exists()
    press(tab, "Delete", "sub/b.png")  # none of these
    press(tab, "Space", "d.png")  # skip
    assert progress(tab) == "2 of 5 decided · 1 none of these · 1 skipped · 3 left"
    assert tab.locator("#guess").inner_text() == "none is recorded"
    tab.keyboard.type("dü")
    tab.locator("#classes .first", has_text="dünkel").wait_for()
    press(tab, "Enter", "sub/b.png")  # what was typed; then e.jpg can't be read, and what was skipped comes again
    assert (out / "dünkel" / "d.png").exists()
    assert "1 can't be read" in tab.locator("#problems").inner_text()
    tab.keyboard.type("<b>Riss</b> 1")
    assert tab.locator("#new").inner_text().endswith("new class “<b>Riss</b> 1”")
    tab.keyboard.press("Escape")
    tab.keyboard.type("Riss 1")
    tab.keyboard.press("Shift+Enter")
    tab.locator("body[data-state=done]").wait_for()
    assert (out / "Riss 1" / "b.png").exists()
    assert "edgeclf train" in tab.locator("#waiting").inner_text()
    assert tab.locator("#banner").is_hidden()


def test_on_a_phone_in_the_dark_a_touch_decides_and_nothing_is_wider_than_the_screen(opened, reviewing, tmp_path):
    person = reviewing()
    tab = opened(person.page.url, PHONE, color_scheme="dark", has_touch=True, is_mobile=True, device_scale_factor=2)
    shows(tab, "c.png")
    tab.screenshot(path=tmp_path / "phone.png", full_page=True)
    tab.locator("#classes button", has_text="hell").tap()
    shows(tab, "a.png")
    tab.locator("#undo").tap()
    shows(tab, "c.png")
    tab.locator("#none").tap()
    shows(tab, "a.png")
    assert progress(tab) == "1 of 4 decided · 1 none of these · 3 left"
    for width in (360, 320):
        tab.set_viewport_size({"width": width, "height": 640})
        assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    box = tab.locator("#none").bounding_box()
    assert box["y"] + box["height"] <= 640, "the actions are in sight without scrolling"


def test_two_tabs_and_a_program_that_ended_are_said_and_nothing_is_decided_twice(opened, reviewing, tmp_path):
    person = reviewing()
    one, other = (opened(person.page.url, may_fail=True) for _ in range(2))
    shows(one, "c.png")
    shows(other, "c.png")
    press(one, "1", "a.png")
    press(other, "2", "a.png")
    assert other.locator("#banner").inner_text() == "c.png is decided already: dünkel."
    assert progress(other) == "1 of 4 decided · 3 left"
    other.reload()
    shows(other, "a.png")
    press(other, "Backspace", "c.png")  # what the other tab decided, after loading it again
    assert not list((tmp_path / "out" / "dünkel").iterdir())
    one.keyboard.type("a/b")
    one.keyboard.press("Shift+Enter")
    one.locator("#banner", has_text="holds a slash").wait_for()
    one.keyboard.press("Escape")
    person.page.close()
    one.keyboard.press("1")
    one.locator("#banner", has_text="the program has ended").wait_for()


def test_the_token_opens_the_page_and_decides(opened, reviewing):
    person = reviewing(token="a-token-of-the-tests")  # noqa: S106 - of the tests
    tab = opened(person.page.link)
    shows(tab, "c.png")
    assert tab.url == person.page.url
    press(tab, "1", "a.png")
