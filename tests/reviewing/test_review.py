from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeclf.data.dataset import scan
from edgeclf.reviewing import session
from edgeclf.reviewing.classes import name_problem
from edgeclf.reviewing.journal import JOURNAL, Journal
from edgeclf.reviewing.review import review
from edgeclf_device import DataError, SystemStateError, UsageError

ARTIFACT = Path(__file__).parents[1] / "device" / "artifacts" / "format-1.2.onnx"
TOKEN = "a-token-of-the-tests"  # noqa: S105 - of the tests


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_png(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


# ---- the road


def test_the_least_sure_image_comes_first_with_what_the_device_said_of_it(reviewing):
    person = reviewing()
    answer = person.next()
    assert answer["image"]["name"] == "c.png"
    assert answer["image"]["guess"]["label"] == "ひび割れ"
    assert answer["image"]["guess"]["score"] == pytest.approx(0.55)
    assert [one["label"] for one in answer["classes"]] == ["dünkel", "hell", "ひび割れ"]
    assert (answer["total"], answer["decided"], answer["left"], answer["history"]) == (4, 0, 4, [])
    names = [person.next(after)["image"]["name"] for after in range(4)]
    assert names == ["a.png", "sub/b.png", "d.png", "c.png"], "after the last one comes the first again"
    assert person.next(2)["image"]["guess"] is None
    status, headers, jpeg = person.ask("GET", "/picture?number=0")
    assert (status, headers.get_content_type()) == (200, "image/jpeg")
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (40, 50, 3)


def test_a_decided_image_is_copied_byte_for_byte_and_the_original_stays(reviewing, hard, tmp_path):
    before = content(hard)
    person = reviewing()
    answer = person.decide(0, "hell")
    assert answer["image"]["name"] == "a.png"
    assert (answer["decided"], answer["left"], answer["history"]) == (1, 3, [0])
    assert {one["label"]: one["images"] for one in answer["classes"]} == {"dünkel": 0, "hell": 1, "ひび割れ": 0}
    answer = person.decide(1, None)
    assert (answer["decided"], answer["none"]) == (2, 1)
    assert content(hard) == before
    files = content(tmp_path / "out")
    assert files.pop(JOURNAL)
    assert files == {"hell/c.png": before["c.png"]}


def test_a_decision_is_undone_without_a_trace_and_decided_anew(reviewing, tmp_path):
    person = reviewing()
    person.decide(0, "hell")
    answer = person.undo(0)
    assert answer["image"]["number"] == 0
    assert (answer["decided"], answer["history"]) == (0, [])
    assert not list((tmp_path / "out" / "hell").iterdir())
    person.decide(0, "dünkel")
    assert sorted(content(tmp_path / "out")) == ["dünkel/c.png", JOURNAL]
    person.decide(1, None)
    assert person.undo(1)["none"] == 0


def test_a_new_class_is_made_and_goes_with_its_last_image(reviewing, tmp_path):
    person = reviewing()
    answer = person.decide(0, "Gänse", new=True)
    assert {one["label"]: one["images"] for one in answer["classes"]}["Gänse"] == 1
    person.decide(1, "Gänse")
    person.undo(1)
    assert (tmp_path / "out" / "Gänse").is_dir()
    answer = person.undo(0)
    assert "Gänse" not in [one["label"] for one in answer["classes"]]
    assert not (tmp_path / "out" / "Gänse").exists()


def test_a_review_goes_on_where_it_ended_and_can_undo_what_was_decided_before(reviewing, hard, tmp_path):
    with review(hard, out=tmp_path / "out", address="127.0.0.1:0") as page:
        page.review.decide(0, "hell", new=True)
        page.review.decide(2, None)
    person = reviewing()
    answer = person.next()
    assert answer["image"]["number"] == 1
    assert (answer["decided"], answer["left"], answer["history"]) == (2, 2, [0, 2])
    person.undo(0)
    assert not (tmp_path / "out" / "hell" / "c.png").exists()


def test_when_all_is_decided_nothing_is_left(reviewing):
    person = reviewing()
    for number in range(4):
        answer = person.decide(number, "hell")
    assert answer["image"] is None
    assert answer["left"] == 0


def test_a_model_s_labels_are_classes_and_it_says_what_it_sees(reviewing, hard):
    pytest.importorskip("onnxruntime")
    person = reviewing(model=ARTIFACT, labels=None)
    answer = person.next()
    assert answer["image"]["guess"]["label"] in [one["label"] for one in answer["classes"]]
    assert len(answer["image"]["guess"]["top"]) == 3


def test_2_a_model_of_video_guesses_nothing_of_single_images(hard, tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(UsageError, match=r"single images, but .*format-1\.3\.onnx sees windows of 4 frames"):
        review(hard, out=tmp_path / "out", model=ARTIFACT.with_name("format-1.3.onnx"))


# ---- where copies go


def test_class_folders_that_are_there_are_classes_and_train_takes_up_what_came(reviewing, tmp_path):
    out = tmp_path / "photos"
    for label in ("cat", "dog"):
        for index in range(3):
            write_png(out / label / f"{index}.png", index)
    person = reviewing(out=out, labels=None)
    assert [one["label"] for one in person.next()["classes"]] == ["cat", "dog"]
    person.decide(0, "dog")
    person.decide(1, "cow", new=True)
    dataset = scan(out, for_training=False)
    counts = {label: sum(item.label == index for item in dataset.items) for index, label in enumerate(dataset.labels)}
    assert counts == {"cat": 3, "cow": 1, "dog": 4}
    assert dict(dataset.ignored) == {}


def test_of_data_that_is_divided_the_train_part_gets_the_images(reviewing, tmp_path):
    out = tmp_path / "photos"
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            write_png(out / part / label / "0.png")
    person = reviewing(out=out, labels=None)
    person.decide(0, "dog")
    assert (out / "train" / "dog" / "c.png").exists()
    (item,) = [item for item in scan(out, for_training=False).items if item.path.endswith("c.png")]
    assert item.split == "train"


def test_a_name_that_is_taken_gets_a_number_and_nothing_is_overwritten(reviewing, hard, tmp_path):
    write_png(hard / "sub" / "c.png", 77)
    (tmp_path / "out" / "hell").mkdir(parents=True)
    (tmp_path / "out" / "hell" / "c.png").write_bytes(b"mine")
    person = reviewing()
    names = {}
    while (image := person.next()["image"]) is not None:
        names[image["name"]] = image["number"]
        person.decide(image["number"], "hell")
    files = content(tmp_path / "out" / "hell")
    assert files["c.png"] == b"mine"
    assert files["c-2.png"] == (hard / "c.png").read_bytes()
    assert files["c-3.png"] == (hard / "sub" / "c.png").read_bytes()
    person.undo(names["c.png"])
    assert (tmp_path / "out" / "hell" / "c.png").read_bytes() == b"mine"
    assert not (tmp_path / "out" / "hell" / "c-2.png").exists()


def test_an_equal_file_that_lay_there_is_taken_as_the_copy_and_no_undo_removes_it(reviewing, hard, tmp_path):
    (tmp_path / "out" / "hell").mkdir(parents=True)
    (tmp_path / "out" / "hell" / "c.png").write_bytes((hard / "c.png").read_bytes())
    person = reviewing()
    person.decide(0, "hell")
    assert len(list((tmp_path / "out" / "hell").iterdir())) == 1
    person.undo(0)
    assert (tmp_path / "out" / "hell" / "c.png").exists()


def test_a_npy_frame_becomes_a_png_that_train_reads(reviewing, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    (tmp_path / "frames").mkdir()
    np.save(tmp_path / "frames" / "f.npy", pixels)
    person = reviewing(tmp_path / "frames")
    person.decide(0, "hell")
    kept = cv2.imread(str(tmp_path / "out" / "hell" / "f.png"))
    assert (kept[..., ::-1] == pixels).all()


def test_a_file_s_name_that_is_no_text_becomes_one(reviewing, hard, tmp_path):
    os.rename(os.fsencode(hard / "c.png"), os.fsencode(hard) + b"/\xff.png")  # noqa: PTH104 - of bytes
    (hard / "c.json").unlink()
    person = reviewing()
    while (image := person.next()["image"]) is not None:
        person.decide(image["number"], "hell")
    assert "_.png" in content(tmp_path / "out" / "hell")
    assert scan(tmp_path / "out", for_training=False).items


# ---- two at once


def test_of_two_tabs_that_decide_one_image_one_is_told_so(reviewing, tmp_path):
    person = reviewing()
    person.decide(0, "hell")
    status, said = person.refused("/decide", {"number": 0, "label": "dünkel"})
    assert (status, said) == (409, "c.png is decided already: hell.")
    person.undo(0)
    assert person.refused("/undo", {"number": 0}) == (409, "c.png is not decided, so there is nothing to undo.")
    assert [*content(tmp_path / "out")] == [JOURNAL]


def test_many_at_once_decide_each_image_once(reviewing, hard, tmp_path):
    person = reviewing()
    answers = []

    def decide(number, label):
        answers.append(person.ask("POST", "/decide", {"number": number, "label": label})[0])

    threads = [threading.Thread(target=decide, args=(n, label)) for n in range(4) for label in ("hell", "dünkel")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 4 + [409] * 4
    assert len(content(tmp_path / "out")) == 5
    assert len((tmp_path / "out" / JOURNAL).read_text().splitlines()) == 4


def test_5_a_second_review_of_one_folder_is_refused(reviewing, hard, tmp_path):
    reviewing()
    with pytest.raises(SystemStateError, match="One review at a time may write"):
        review(hard, out=tmp_path / "out", address="127.0.0.1:0")


# ---- interrupted


def test_a_line_that_a_power_cut_tore_counts_as_never_written(reviewing, hard, tmp_path):
    with review(hard, out=tmp_path / "out", address="127.0.0.1:0") as page:
        page.review.decide(0, None)
        page.review.decide(1, None)
    path = tmp_path / "out" / JOURNAL
    path.write_bytes(path.read_bytes()[:-20])
    person = reviewing()
    assert person.next()["image"]["number"] == 1
    person.decide(1, "hell")
    assert {one.label for one in _decisions(path)} == {None, "hell"}


def _decisions(path):
    copy = path.parent.parent / "copy"
    copy.mkdir()
    (copy / JOURNAL).write_bytes(path.read_bytes())
    with Journal(copy) as journal:
        return list(journal.decisions.values())


def test_a_copy_made_just_before_a_power_cut_is_not_made_twice(reviewing, tmp_path):
    person = reviewing()
    person.decide(0, "hell")
    person.page.close()
    (tmp_path / "out" / JOURNAL).unlink()
    person = reviewing()
    assert person.next()["image"]["number"] == 0
    person.decide(0, "hell")
    assert [path.name for path in (tmp_path / "out" / "hell").iterdir()] == ["c.png"]


@pytest.mark.parametrize("file", ["../hard/a.png", "/etc/hostname", "hell/../../hard/a.png"])
def test_a_journal_that_points_elsewhere_removes_nothing(reviewing, hard, tmp_path, file):
    (tmp_path / "out").mkdir()
    line = {"image": str(hard / "a.png"), "label": "hell", "file": file, "sha256": "0" * 64, "made": True}
    (tmp_path / "out" / JOURNAL).write_text(json.dumps(line) + "\n[]\nnonsense\n")
    person = reviewing()
    assert person.next()["decided"] == 0
    assert person.refused("/undo", {"number": 1})[0] == 409
    assert (hard / "a.png").exists()


def test_a_copy_that_was_changed_since_is_not_removed(reviewing, tmp_path):
    person = reviewing()
    person.decide(0, "hell")
    (tmp_path / "out" / "hell" / "c.png").write_bytes(b"retouched")
    status, said = person.refused("/undo", {"number": 0})
    assert (status, "was changed since it was put there" in said) == (409, True)
    assert (tmp_path / "out" / "hell" / "c.png").read_bytes() == b"retouched"
    (tmp_path / "out" / "hell" / "c.png").unlink()
    assert person.undo(0)["decided"] == 0


# ---- bad input


def test_images_that_can_not_be_read_are_passed_over_and_named(reviewing, hard):
    (hard / "0-empty.png").write_bytes(b"")
    (hard / "1-torn.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()[:-300])
    np.save(hard / "2-floats.npy", np.zeros((4, 4, 3)))
    person = reviewing()
    for number in range(3):
        person.decide(number, "hell")
    answer = person.next()
    assert answer["image"]["name"] == "d.png"
    assert (answer["total"], answer["unreadable"], answer["left"]) == (7, 3, 1)
    reasons = " ".join(answer["reasons"])
    assert all(part in reasons for part in ("0-empty.png is empty", "1-torn.jpg is cut off", "must hold uint8"))


def test_a_folder_of_nothing_but_damaged_images_is_done_at_once(reviewing, tmp_path):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.png").write_bytes(b"no")
    answer = reviewing(tmp_path / "torn").next()
    assert (answer["image"], answer["left"], answer["unreadable"]) == (None, 0, 1)


def test_an_image_that_vanishes_while_it_is_looked_at_is_said_and_passed_over(reviewing, hard):
    person = reviewing()
    person.next()
    (hard / "c.png").unlink()
    status, said = person.refused("/decide", {"number": 0, "label": "hell"})
    assert (status, "can't be read" in said) == (422, True)
    assert person.next(0)["image"]["name"] == "a.png"


def test_of_thousands_of_images_one_is_opened_at_a_time(reviewing, tmp_path, monkeypatch):
    folder = tmp_path / "many"
    write_png(folder / "0000.png")
    for index in range(1, 5000):
        os.link(folder / "0000.png", folder / f"{index:04}.png")
    opened, load = [], session.load
    monkeypatch.setattr(session, "load", lambda path: opened.append(path) or load(path))
    person = reviewing(folder)
    assert person.next()["total"] == 5000
    assert person.decide(0, "hell")["image"]["number"] == 1
    assert len(opened) == 2
    assert len(person.ask("GET", "/next?after=1")[2]) < 1000


def test_3_an_empty_folder_and_none_at_all(hard, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.png").write_bytes(b"")
    with pytest.raises(DataError, match="holds no images"):
        review(tmp_path / "empty", out=tmp_path / "out")
    with pytest.raises(DataError, match="must be a folder of images"):
        review(tmp_path / "nowhere", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_2_what_is_reviewed_and_out_lie_apart(hard, tmp_path):
    for folder, out in ((hard, hard), (hard, tmp_path), (hard, hard / "out")):
        with pytest.raises(UsageError, match="must lie apart"):
            review(folder, out=out)
    with pytest.raises(UsageError, match="is a file"):
        review(hard, out=hard / "a.png")


def test_3_labels_that_can_not_be_folders(hard, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("TV/monitor\nok\n")
    with pytest.raises(DataError, match="'TV/monitor' holds a slash"):
        review(hard, out=tmp_path / "out", labels=labels)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " a",
        "a ",
        "a.",
        ".",
        "..",
        ".a",
        "a/b",
        "../a",
        "a\\b",
        "a\0b",
        "a\nb",
        "\udcff",
        "x" * 201,
        "train",
        "Hell",
    ],
)
def test_a_class_has_a_name_that_is_a_folder_s(reviewing, tmp_path, name):
    assert name_problem(name, ["hell"])
    person = reviewing()
    status, said = person.refused("/decide", {"number": 0, "label": name, "new": True})
    assert (status, said.startswith("A class becomes a folder, but")) == (422, True)
    assert sorted(content(tmp_path / "out")) == [JOURNAL]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hard", "labels.txt", "out"]


def test_a_class_that_is_not_there_is_not_made_by_mistake(reviewing, tmp_path):
    person = reviewing()
    status, said = person.refused("/decide", {"number": 0, "label": "heII"})
    assert (status, said) == (409, "There is no class 'heII'; load the page again.")


def test_5_a_full_disk_leaves_the_image_undecided(hard, labels, small_disk):
    disk = small_disk
    with review(hard, out=disk / "out", labels=labels, address="127.0.0.1:0") as page:
        (disk / "ballast").write_bytes(bytes(56 << 10))
        with pytest.raises(SystemStateError, match="No space left"):
            page.review.decide(0, "hell")
        assert page.review.state()["decided"] == 0
        assert not content(disk / "out" / "hell")
        (disk / "ballast").unlink()
        page.review.decide(0, "hell")
        assert page.review.state()["decided"] == 1


def test_5_an_out_that_can_not_be_written(hard, tmp_path):
    with pytest.raises(SystemStateError, match=r"can't be written: .*; choose another OUT"):
        review(hard, out=Path("/proc/out"), address="127.0.0.1:0")


def test_5_after_the_end_nothing_is_decided(hard, labels, tmp_path):
    with review(hard, out=tmp_path / "out", labels=labels, address="127.0.0.1:0") as page:
        page.close()
        with pytest.raises(SystemStateError, match="can't be written"):
            page.review.decide(0, "hell")
    assert sorted(content(tmp_path / "out")) == [JOURNAL]


def test_5_a_port_that_is_taken_frees_the_journal(hard, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SystemStateError, match="is taken by another program"):
            review(hard, out=tmp_path / "out", address=address)
    with review(hard, out=tmp_path / "out", address="127.0.0.1:0"):
        pass


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"number": 0, "pad": "' + b"x" * 5000 + b'"}',
        {"label": "hell"},
        {"number": True, "label": "hell"},
        {"number": "0", "label": "hell"},
        {"number": 0, "label": 7},
        {"number": 0, "label": "hell", "new": "yes"},
        {"number": 99, "label": "hell"},
        {"number": -1, "label": "hell"},
    ],
)
def test_what_is_no_decision_changes_nothing(reviewing, tmp_path, body):
    person = reviewing()
    assert person.refused("/decide", body)[0] == 422
    assert person.next()["decided"] == 0


@pytest.mark.parametrize(
    "path",
    ["/../hard/a.png", "/picture?number=../a.png", "/picture?number=99", "/picture", "/next?after=x", "/hard/a.png"],
)
def test_no_path_leads_to_another_file(reviewing, path):
    assert reviewing().ask("GET", path)[0] in (404, 422)


# ---- who may


def test_another_host_name_is_refused(reviewing):
    person = reviewing()
    for host in ("evil.example", "127.0.0.1.evil.example:8081"):
        assert person.ask("GET", "/next", Host=host)[0] == 421
        assert person.ask("POST", "/decide", {"number": 0, "label": None}, Host=host)[0] == 421
    assert person.next()["decided"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
    ],
)
def test_another_site_decides_nothing(reviewing, headers):
    person = reviewing()
    assert person.ask("POST", "/decide", {"number": 0, "label": None}, **headers)[0] == 403
    assert person.next()["decided"] == 0


def test_a_form_of_another_site_is_no_json(reviewing):
    person = reviewing()
    status, _, said = person.ask("POST", "/decide", b'{"number": 0, "label": null}', Content_Type="text/plain")
    assert (status, b"must be application/json" in said) == (422, True)
    assert person.next()["decided"] == 0
    assert person.ask("OPTIONS", "/decide")[0] == 405
    assert person.ask("GET", "/decide")[0] == 405


def test_the_page_itself_may(reviewing):
    person = reviewing()
    own = {"Origin": f"http://{person.address}", "Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"}
    assert person.ask("POST", "/decide", {"number": 0, "label": None}, **own)[0] == 200


def test_with_a_token_nothing_is_shown_or_decided_without_it(reviewing):
    person = reviewing(token=TOKEN)
    body = {"number": 0, "label": None}
    assert person.ask("GET", "/picture?number=0")[0] == 401
    assert person.ask("POST", "/decide", body)[0] == 401
    _, headers, _ = person.ask("GET", f"/?token={TOKEN}")
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert person.ask("POST", "/decide", body, Cookie=cookie)[0] == 200


def test_2_a_host_beyond_loopback_needs_leave_and_a_token(hard, tmp_path):
    for options in ({}, {"token": TOKEN}, {"allow_remote": True}):
        with pytest.raises(UsageError, match=r"can be reached from other machines"):
            review(hard, out=tmp_path / "out", address="0.0.0.0:0", **options)


def test_the_page_and_its_parts_come_with_a_strict_policy(reviewing):
    person = reviewing()
    for path, kind in {"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css"}.items():
        status, headers, body = person.ask("GET", path)
        assert (status, headers.get_content_type()) == (200, kind)
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert b"http" not in body.replace(b"http-equiv", b""), "an address outside"
