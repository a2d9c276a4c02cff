"""The user-data is valid, contains no secret, and admits only the operator."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from stack.bootstrap.install_docker import DAEMON_SETTINGS
from stack.commands import cloud_init
from tests.files.tree import installed, must_pass
from tests.support.failing import error_of

pytestmark = pytest.mark.style

# Amazon's limit; those of other large clouds are higher.
LARGEST_USER_DATA = 16 * 1024  # bytes
# Keys that set a password or contain a credential.
SECRETS = re.compile(r"passwd$|^password|^chpasswd$|^ssh_keys$|token|secret|private", re.IGNORECASE)
HARMLESS = {"lock_passwd"}

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def public(key: PrivateKey, comment: str = "ada@example.org") -> str:
    return encoded(key.public_key(), comment)


def encoded(key: PublicKey, comment: str = "ada@example.org") -> str:
    written = key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{written.decode()} {comment}"


def private(key: PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption()).decode()


PRIVATE = ed25519.Ed25519PrivateKey.generate()
KEY = public(PRIVATE)


@pytest.fixture(scope="module")
def user_data() -> dict[str, Any]:
    rendered = yaml.safe_load(cloud_init.render(KEY))
    assert isinstance(rendered, dict)
    return rendered


@pytest.fixture(scope="module")
def written(user_data: dict[str, Any]) -> dict[str, str]:
    """Return the files that the user-data writes, by path."""
    return {file["path"]: file["content"] for file in user_data["write_files"]}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's home with an empty .ssh."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def names(part: object) -> Iterator[str]:
    """Yield all keys of all nested mappings."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield key
            yield from names(value)
    elif isinstance(part, list):
        for item in part:
            yield from names(item)


def test_cloud_init_recognizes_it_by_its_first_line() -> None:
    assert cloud_init.render(KEY).splitlines()[0] == "#cloud-config"


def test_it_fits_every_clouds_limit() -> None:
    # Any number of that length does: finding primes takes a second.
    longest = encoded(rsa.RSAPublicNumbers(65537, 2**4096 - 1).public_key())

    assert len(cloud_init.render(longest).encode()) < LARGEST_USER_DATA


def test_the_operator_is_the_only_user_and_has_the_key(user_data: dict[str, Any]) -> None:
    user, = user_data["users"]

    assert (user["name"], user["ssh_authorized_keys"]) == ("deploy", [KEY])
    assert user["lock_passwd"] is True
    assert user_data["disable_root"] is True and user_data["ssh_pwauth"] is False


def test_the_user_can_be_chosen() -> None:
    user, = yaml.safe_load(cloud_init.render(KEY, "ada-2"))["users"]

    assert user["name"] == "ada-2"


def test_every_placeholder_is_filled_in() -> None:
    assert re.findall(r"@[A-Z_]+@", cloud_init.render(KEY)) == []


@pytest.mark.parametrize("comment", [
    "", "Ada's \"key\": #1 - {x} [y] & * ! | > %", "\\ $HOME `id` ${x} @USER@", "Zoë"])
def test_a_keys_comment_is_always_plain_data(comment: str) -> None:
    key = public(PRIVATE, comment).strip()

    rendered = yaml.safe_load(cloud_init.render(key))

    assert rendered["users"][0]["ssh_authorized_keys"] == [key]
    assert rendered.keys() == yaml.safe_load(cloud_init.render(KEY)).keys()


@pytest.mark.parametrize("generate", [
    partial(ec.generate_private_key, ec.SECP384R1()),
    partial(rsa.generate_private_key, 65537, 3072)], ids=["ecdsa", "rsa"])
def test_keys_of_other_common_types_are_accepted(generate: Callable[[], PrivateKey]) -> None:
    key = generate()

    assert public(key) in cloud_init.render(public(key))


def test_there_is_no_secret_in_it(user_data: dict[str, Any]) -> None:
    telling = {name for name in names(user_data) if SECRETS.search(name)}

    assert telling == HARMLESS
    assert re.search(r"PRIVATE KEY|SWMTKN-|swarm join|\$[156y]\$", cloud_init.render(KEY)) is None


def test_every_file_is_written_once_by_its_full_path(user_data: dict[str, Any]) -> None:
    paths = [file["path"] for file in user_data["write_files"]]

    assert len(set(paths)) == len(paths)
    assert [path for path in paths if not path.startswith("/")] == []


def test_no_command_uses_a_shell_and_the_first_failure_ends_them(
        user_data: dict[str, Any]) -> None:
    commands = user_data["runcmd"]

    assert [command for command in commands if not isinstance(command, list)] == []
    assert commands[0] == ["set", "-e"]


def test_the_commands_are_a_shell_script_that_shellcheck_accepts(
        user_data: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "runcmd"
    script.write_text("#!/bin/sh\n" + "".join(
        shlex.join(command) + "\n" for command in user_data["runcmd"]))

    must_pass(installed("shellcheck"), str(script))


def test_the_python_script_passes_the_linter_and_the_type_checker(
        written: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "peers.py"
    script.write_text(written["/usr/local/sbin/tally-peers"])

    must_pass(sys.executable, "-m", "flake8", str(script))
    must_pass(sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(script))


def test_docker_rotates_logs_and_denies_new_privileges(
        written: dict[str, str]) -> None:
    settings = json.loads(written["/etc/docker/daemon.json"])

    assert settings["log-opts"] == {"max-size": "10m", "max-file": "3"}
    assert settings["no-new-privileges"] is True
    assert settings["default-ulimits"]["nofile"]["Name"] == "nofile"


def test_docker_has_the_settings_that_bootstrap_gives_it(written: dict[str, str]) -> None:
    settings = json.loads(written["/etc/docker/daemon.json"])
    assert settings | DAEMON_SETTINGS == settings


def test_there_are_no_peers_until_bootstrap_writes_them(written: dict[str, str]) -> None:
    lines = written["/etc/tally/peers"].splitlines()

    assert lines and [line for line in lines if not line.startswith("#")] == []


@pytest.mark.parametrize("user", ["root", "", "Ada", "0day", "a b", "ada\n", "a" * 33, "x:y"])
def test_a_bad_user_is_refused(user: str) -> None:
    assert error_of(lambda: cloud_init.render(KEY, user)).startswith("user ")


@pytest.mark.parametrize(("text", "said"), [
    (private(PRIVATE), "is a private key: name the public one, which ends in .pub"),
    ("PuTTY-User-Key-File-3: ssh-ed25519\n",
     "is a private key: name the public one, which ends in .pub"),
    ("", "has 0 lines: it should be one public key"),
    (f"{KEY}\n{KEY}\n", "has 2 lines: it should be one public key"),
    (f"{KEY}\u2028x", "has 2 lines: it should be one public key"),
    ("hello", "isn't a public key that sshd accepts: make one with: ssh-keygen -t ed25519"),
    (KEY[:40], "isn't a public key that sshd accepts: make one with: ssh-keygen -t ed25519"),
    (KEY.replace("ssh-ed25519", "ssh-rsa"),
     "isn't a public key that sshd accepts: make one with: ssh-keygen -t ed25519"),
    (KEY.replace("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"),
     "isn't a public key that sshd accepts: make one with: ssh-keygen -t ed25519"),
    (f'command="/bin/sh" {KEY}',
     "isn't a public key that sshd accepts: make one with: ssh-keygen -t ed25519"),
], ids=range(10))
def test_anything_but_a_public_key_is_refused_and_not_repeated(
        home: Path, text: str, said: str) -> None:
    file = home / "key"
    file.write_text(text)

    assert error_of(lambda: cloud_init.cloud_init(str(file))) == f"{file} {said}"
    assert error_of(lambda: cloud_init.render(text)) == f"the public key {said}"


def test_a_file_that_is_missing_or_not_text_is_refused(home: Path) -> None:
    (home / "picture").write_bytes(b"\xff\xd8\xff\xe0")

    assert error_of(lambda: cloud_init.cloud_init(str(home / "absent"))) \
        == f"{home}/absent can't be read: No such file or directory"
    assert error_of(lambda: cloud_init.cloud_init(str(home))) \
        == f"{home} can't be read: Is a directory"
    assert error_of(lambda: cloud_init.cloud_init(str(home / "picture"))) \
        == f"{home}/picture isn't text: name the public key, which ends in .pub"


def test_the_named_key_is_printed_in_the_user_data(
        home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "ada.pub").write_text(KEY + "\n")

    cloud_init.cloud_init("~/ada.pub")

    assert capsys.readouterr() == (cloud_init.render(KEY), "")


def test_the_operators_best_key_is_the_default(
        home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("id_rsa", "id_ecdsa", "id_ed25519"):
        key = public(PRIVATE, f"from {name}")
        (home / ".ssh" / f"{name}.pub").write_text(key)

        cloud_init.cloud_init()

        assert capsys.readouterr().out == cloud_init.render(key)


def test_an_operator_without_a_key_is_told_how_to_make_one(home: Path) -> None:
    assert error_of(cloud_init.cloud_init) == (
        f"there is no id_ed25519.pub, id_ecdsa.pub, id_rsa.pub in {home}/.ssh: make a key with: "
        "ssh-keygen -t ed25519, or name one: ./fab cloud-init --key FILE")


def test_a_key_from_ssh_keygen_is_accepted(
        home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".ssh/id_ed25519"],
                   check=True)

    cloud_init.cloud_init()

    user, = yaml.safe_load(capsys.readouterr().out)["users"]
    assert user["ssh_authorized_keys"] == [(home / ".ssh/id_ed25519.pub").read_text().strip()]
