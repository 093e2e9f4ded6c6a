from __future__ import annotations

import subprocess
import threading
import time

import pytest

from edgeclf.benchmarking.ssh import LinkError, RefusedError, check_name, connected, patiently
from edgeclf_device.errors import DependencyError, SystemStateError, UsageError

WORDS = ["it's", 'a "word"', "$(id)", "`id`", "a\\b", "x;y&z", "*", "~", "", "-n", "Riß", "!!", "%C", "two\nlines"]


@pytest.mark.parametrize(
    "name",
    ["-oProxyCommand=touch pwned", "", "a b", "user@-x", "-x@board", "board;id", "$(id)", "a'b", "board\n", "@board"],
)
def test_a_name_that_ssh_or_a_shell_reads_as_more_is_refused(name):
    with pytest.raises(UsageError, match="must be named as ssh names it"):
        check_name(name)


@pytest.mark.parametrize("name", ["board", "pi@board.local", "ssh://pi@10.0.0.7:2222", "fe80::1%eth0", "a_b", "::1"])
def test_names_that_ssh_knows_are_taken(name):
    check_name(name)


def test_every_argument_arrives_as_it_was_given(server):
    with connected("board", config=server.config) as host:
        done = host.run(["printf", "%s\\0", *WORDS])
        assert done.stdout.decode().split("\0")[:-1] == WORDS
        assert host.run(["cat"], stdin=b"\x00\xff\n").stdout == b"\x00\xff\n"


def test_one_authentication_serves_all_calls_and_ends_with_the_block(server):
    before = (server.folder / "sshd.log").read_text().count("Accepted publickey")
    with connected("board", config=server.config) as host:
        for _ in range(4):
            host.run(["true"])
        folder = host.socket.parent
        assert folder.stat().st_mode & 0o077 == 0
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()
    assert (server.folder / "sshd.log").read_text().count("Accepted publickey") == before + 1


def test_the_configuration_may_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("EDGECLF_SSH_CONFIG", str(server.config))
    with connected("board") as host:
        assert host.run(["echo", "here"]).stdout == b"here\n"


def test_a_code_of_the_command_is_not_one_of_ssh(server):
    with connected("board", config=server.config) as host:
        assert host.run(["sh", "-c", "echo why >&2; exit 255"]).code == 254
        done = host.run(["sh", "-c", "echo why >&2; exit 5"])
        assert (done.code, done.stderr) == (5, "why")


def test_files_go_there_and_back_whole(server, tmp_path):
    data = bytes(range(256)) * 4096
    (tmp_path / "up").write_bytes(data)
    remote = str(tmp_path / 'it\'s $(id) "there"')
    with connected("board", config=server.config) as host:
        host.put(tmp_path / "up", remote)
        host.get(remote, tmp_path / "down")
        with pytest.raises(SystemStateError, match=r"no-such-folder.*on board"):
            host.put(tmp_path / "up", str(tmp_path / "no-such-folder" / "x"))
        with pytest.raises(SystemStateError, match="could not be read on board"):
            host.get(remote + "?", tmp_path / "other")
    assert (tmp_path / "down").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["up", "down", 'it\'s $(id) "there"'])


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("stranger", RefusedError, r"ssh-copy-id stranger.*Permission denied \(publickey\)"),
        ("unknown", RefusedError, r"`ssh unknown` once by hand.*Host key verification failed"),
        ("changed", RefusedError, r"ssh-keygen -R"),
        ("off", LinkError, r"check its name, its power.*Connection refused"),
        ("no-such-host.invalid", LinkError, r"check its name.*Could not resolve hostname"),
    ],
)
def test_a_host_that_lets_nobody_in_is_told_with_what_ssh_said(server, name, kind, words):
    with connected(name, config=server.config) as host, pytest.raises(kind, match=rf"(?s){words}") as raised:
        host.run(["true"])
    assert raised.value.exit_code == DependencyError.exit_code == 5


def test_a_link_that_drops_is_told_and_the_next_call_makes_another(server):
    with connected("board", config=server.config) as host:
        errors = []

        def sleep():
            try:
                host.run(["sleep", "60"])
            except LinkError as error:
                errors.append(error)

        thread = threading.Thread(target=sleep)
        thread.start()
        time.sleep(1)
        assert server.drop_links() > 0
        thread.join(timeout=30)
        assert len(errors) == 1
        assert host.run(["echo", "again"]).stdout == b"again\n"


def test_a_file_of_which_a_part_arrived_does_not_appear(server, tmp_path, monkeypatch):
    (tmp_path / "up").write_bytes(b"x" * 10)
    given = subprocess.run
    with connected("board", config=server.config) as host, monkeypatch.context() as patch:

        def torn(command, **options):
            return given(command, **{**options, "input": options["input"][:7]})

        patch.setattr(subprocess, "run", torn)
        with pytest.raises(SystemStateError):
            host.put(tmp_path / "up", str(tmp_path / "there"))
    assert [path.name for path in tmp_path.iterdir()] == ["up"]


def test_a_command_that_takes_too_long_counts_as_a_dropped_link(server):
    with connected("board", config=server.config) as host:
        with pytest.raises(LinkError, match=r"within 0\.5 s"):
            host.run(["sleep", "20"], timeout_s=0.5)
        assert host.run(["true"]).code == 0


def test_waits_grow_and_end_with_the_deadline():
    waits = []

    def fails():
        raise LinkError("gone")

    now = time.monotonic()
    with pytest.raises(LinkError):
        patiently(fails, until=now + 3, wait=waits.append)
    assert waits[:3] == [0.5, 1.0, 2.0]


def test_a_refusal_is_not_tried_again():
    calls = []

    def refused():
        calls.append(1)
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        patiently(refused, until=time.monotonic() + 100)
    assert len(calls) == 1


def test_without_ssh_the_remedy_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DependencyError, match="openssh-client"), connected("board"):
        pass
