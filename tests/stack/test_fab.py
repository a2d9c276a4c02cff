"""./fab makes its environment once, keeps it whole, and then becomes Fabric.

The checkout is a copy of the script with lock files of its own. They name a small
package that stands in Fabric's place and tells how it was started; Python's venv
and pip are the real ones, and need no network for it.
"""

import ast
import base64
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from stack.settings import ROOT
from tests.stack.executables import executable

pytestmark = pytest.mark.unit

LOCK_FILES = ("requirements.fab.txt", "requirements.txt", "requirements.test.txt")
PREPARING = "fab: preparing .venv from requirements.fab.txt\n"
# Says what it was started with, and ends with the number that follows "exit".
FABRIC = """
import json, sys
print(json.dumps(sys.argv[1:]))
sys.exit(int(sys.argv[-1]) if "exit" in sys.argv else 0)
"""


@dataclass(frozen=True)
class Checkout:
    """A copy of ./fab with its own lock files."""

    root: Path

    @property
    def stamp(self) -> list[str]:
        return (self.root / ".venv" / "requirements.sha256").read_text().splitlines()

    def line(self, name: str) -> str:
        """Return a lock file's line in the stamp."""
        return f"{name} {hashlib.sha256((self.root / name).read_bytes()).hexdigest()}"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ./fab in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, self.root / "fab", *arguments], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ./fab to its end."""
        return subprocess.run([sys.executable, self.root / "fab", *arguments],
                              capture_output=True, text=True)

    def load(self) -> ModuleType:
        """Return the script as a module."""
        loader = SourceFileLoader("fab", str(self.root / "fab"))
        spec = importlib.util.spec_from_loader("fab", loader)
        assert spec
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return module


def wheel(folder: Path, name: str, version: str, **modules: str) -> str:
    """Write a package and return the line that locks it."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {f"{name}/{module}.py": text for module, text in modules.items()} | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = [f"{path},{content_hash(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def content_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def lock(root: Path, name: str, *packages: str) -> None:
    """Write a lock file that takes packages from the checkout's own wheels alone."""
    (root / name).write_text("\n".join(
        ["--no-index", f"--find-links {root / 'wheels'}", *packages]) + "\n")


def fill(root: Path) -> Checkout:
    """Make a checkout that was never used."""
    root.mkdir(exist_ok=True)
    shutil.copy(ROOT / "fab", root / "fab")
    wheels = root / "wheels"
    lock(root, "requirements.fab.txt", wheel(wheels, "fabric", "1.0", __main__=FABRIC))
    lock(root, "requirements.txt", wheel(wheels, "flask", "1.0", __init__=""))
    lock(root, "requirements.test.txt", wheel(wheels, "pytest", "1.0", __init__=""))
    return Checkout(root)


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    return fill(tmp_path / "checkout")


@pytest.fixture(scope="module")
def used_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = fill(tmp_path_factory.mktemp("used") / "checkout")
    assert checkout.run("--list").returncode == 0
    return checkout


@pytest.fixture
def prepared(used_once: Checkout, tmp_path: Path) -> Checkout:
    """A checkout of the test's own in which ./fab was run before."""
    root = tmp_path / "prepared"
    shutil.copytree(used_once.root, root, symlinks=True)
    return Checkout(root)


def has(checkout: Checkout, package: str) -> bool:
    python = checkout.root / ".venv" / "bin" / "python"
    return subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode == 0


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} didn't come"
        time.sleep(0.005)


def test_the_first_run_makes_the_environment_and_becomes_fabric(fresh: Checkout) -> None:
    done = fresh.run("bootstrap", "deploy")
    assert (done.returncode, done.stderr) == (0, PREPARING)
    assert json.loads(done.stdout) == ["--search-root", str(fresh.root), "bootstrap", "deploy"]
    assert fresh.stamp == [fresh.line("requirements.fab.txt")]


def test_a_later_run_prepares_nothing(prepared: Checkout) -> None:
    done = prepared.run("logs", "--service", "app and more")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[2:] == ["logs", "--service", "app and more"]


def test_the_exit_code_is_fabrics(prepared: Checkout) -> None:
    assert [prepared.run("exit", code).returncode for code in ("0", "1", "7")] == [0, 1, 7]


def test_it_can_be_called_from_any_folder(
        prepared: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(prepared.run("status").stdout)[1] == str(prepared.root)


def test_a_changed_lock_file_is_installed(prepared: Checkout) -> None:
    newer = wheel(prepared.root / "wheels", "fabric", "2.0", __main__="print('newer')")
    lock(prepared.root, "requirements.fab.txt", newer)
    done = prepared.run("status")
    assert (done.stdout, done.stderr) == ("newer\n", PREPARING)
    assert prepared.stamp == [prepared.line("requirements.fab.txt")]


def test_a_package_that_a_lock_file_adds_is_installed(prepared: Checkout) -> None:
    wheels = prepared.root / "wheels"
    lock(prepared.root, "requirements.fab.txt", wheel(wheels, "fabric", "1.0", __main__=FABRIC),
         wheel(wheels, "extra", "1.0", __init__=""))
    assert not has(prepared, "extra")
    assert prepared.run("status").returncode == 0
    assert has(prepared, "extra")


@pytest.mark.parametrize("task", ["test", "test.unit"])
def test_testing_installs_more_and_keeps_what_operating_needs(
        prepared: Checkout, task: str) -> None:
    done = prepared.run(task)
    assert done.stderr == f"fab: preparing .venv from {', '.join(LOCK_FILES)}\n"
    assert prepared.stamp == [prepared.line(name) for name in LOCK_FILES]
    assert has(prepared, "flask") and has(prepared, "pytest")
    assert prepared.run("status").stderr == prepared.run(task).stderr == ""


def test_a_change_for_operating_keeps_what_testing_needs(prepared: Checkout) -> None:
    assert prepared.run("test").returncode == 0
    newer = wheel(prepared.root / "wheels", "fabric", "2.0", __main__=FABRIC)
    lock(prepared.root, "requirements.fab.txt", newer)
    assert prepared.run("status").stderr == PREPARING
    assert set(prepared.stamp) == {prepared.line(name) for name in LOCK_FILES}
    assert prepared.run("test").stderr == ""


def test_operating_installs_nothing_for_tests(prepared: Checkout) -> None:
    assert not has(prepared, "flask") and not has(prepared, "pytest")


def test_a_package_with_another_hash_is_not_installed(prepared: Checkout) -> None:
    newer = wheel(prepared.root / "wheels", "fabric", "2.0", __main__=FABRIC)
    lock(prepared.root, "requirements.fab.txt", newer[:-64] + "0" * 64)
    done = prepared.run("status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "fab: the requirements could not be installed: is a package index reachable? "
        "Then run the same command again")


def test_a_package_without_a_hash_is_not_installed(prepared: Checkout) -> None:
    newer = wheel(prepared.root / "wheels", "fabric", "2.0", __main__=FABRIC)
    lock(prepared.root, "requirements.fab.txt", newer.split(" --hash")[0])
    done = prepared.run("status")
    assert done.returncode == 1 and "Hashes are required" in done.stderr


def test_after_a_failed_installation_the_next_run_makes_up_for_it(prepared: Checkout) -> None:
    lock(prepared.root, "requirements.fab.txt", f"fabric==9.0 --hash=sha256:{'0' * 64}")
    assert prepared.run("status").returncode == 1
    lock(prepared.root, "requirements.fab.txt",
         wheel(prepared.root / "wheels", "fabric", "1.0", __main__=FABRIC))
    done = prepared.run("status")
    assert (done.returncode, done.stderr) == (0, PREPARING)


@pytest.mark.parametrize("reached", ["python", "pip"])
def test_a_run_that_was_killed_is_made_up_for_by_the_next(fresh: Checkout, reached: str) -> None:
    killed = fresh.start("status")
    wait_for(fresh.root / ".venv" / "bin" / reached)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.communicate()[0] == ""
    assert not (fresh.root / ".venv" / "requirements.sha256").exists()
    done = fresh.run("status")
    assert (done.returncode, done.stderr) == (0, PREPARING)
    assert fresh.stamp == [fresh.line("requirements.fab.txt")]


def test_of_two_first_runs_one_prepares_and_both_arrive(fresh: Checkout) -> None:
    both = [fresh.start("status"), fresh.start("status")]
    said = [each.communicate(timeout=120) for each in both]
    assert [each.returncode for each in both] == [0, 0]
    assert sorted(stderr for _, stderr in said) == ["", PREPARING]
    assert [json.loads(stdout)[2:] for stdout, _ in said] == [["status"], ["status"]]


def test_an_environment_that_lost_its_pip_is_made_anew(prepared: Checkout) -> None:
    for folder in (prepared.root / ".venv" / "lib").glob("python*/site-packages/pip"):
        shutil.rmtree(folder)
    lock(prepared.root, "requirements.fab.txt",
         wheel(prepared.root / "wheels", "fabric", "2.0", __main__=FABRIC))
    done = prepared.run("status")
    assert (done.returncode, done.stderr) == (0, PREPARING)
    assert has(prepared, "pip")


@pytest.mark.parametrize("name", LOCK_FILES)
def test_a_missing_lock_file_names_how_to_restore_it(prepared: Checkout, name: str) -> None:
    (prepared.root / name).unlink()
    done = prepared.run("test")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"fab: {name}: No such file or directory: "
                           f"restore it with: git checkout -- {name}\n")


def test_a_python_that_is_too_old_is_told_what_is_needed(fresh: Checkout) -> None:
    older = ("import runpy, sys; sys.version_info = (3, 9, 2); "
             f"sys.argv = ['fab', 'status']; runpy.run_path({str(fresh.root / 'fab')!r}, "
             "run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", older], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("fab: Python 3.11 or newer is needed, this is 3.9: install it and run "
                           "it with ./fab as its first argument\n")
    assert not (fresh.root / ".venv").exists()


def test_a_python_that_is_too_old_can_read_the_script() -> None:
    ast.parse((ROOT / "fab").read_text(), feature_version=(3, 5))


def test_the_script_needs_the_standard_library_alone() -> None:
    nodes = list(ast.walk(ast.parse((ROOT / "fab").read_text())))
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported and imported <= sys.stdlib_module_names


def test_a_lock_files_line_is_its_name_and_the_hash_of_its_text(fresh: Checkout) -> None:
    (fresh.root / "requirements.txt").write_bytes(b"")
    assert fresh.load().line("requirements.txt") == (
        "requirements.txt e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_an_environment_without_a_stamp_holds_nothing(fresh: Checkout) -> None:
    assert fresh.load().installed() == []


def ends(call: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line that a call prints before it ends the script."""
    with pytest.raises(SystemExit) as raised:
        call()
    assert raised.value.code == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_without_ensurepip_and_apt_the_missing_package_is_named(
        fresh: Checkout, no_commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(fresh.load().install_ensurepip, capsys) == (
        "fab: this Python has no ensurepip: install your system's package for python3-venv")


def test_debians_package_is_installed_quietly(
        fresh: Checkout, no_commands: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    executable(no_commands / "apt-get", "exit 1")
    executable(no_commands / "sudo", f'echo "$*" >> {no_commands}/said')
    fresh.load().install_ensurepip()
    assert (no_commands / "said").read_text().splitlines() == [
        "env DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 update",
        "env DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 install --yes "
        "--no-install-recommends python3-venv"]
    assert capsys.readouterr() == ("", "fab: installing the package python3-venv\n")


def test_a_user_without_sudo_is_told_what_root_should_run(
        fresh: Checkout, no_commands: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    executable(no_commands / "apt-get", "exit 1")
    assert ends(fresh.load().install_ensurepip, capsys) == (
        "fab: python3-venv is missing and there is no sudo: as root, run: "
        "apt-get install python3-venv")


def test_package_sources_that_dont_answer_are_quoted(
        fresh: Checkout, no_commands: Path, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    executable(no_commands / "apt-get", "exit 1")
    executable(no_commands / "sudo", "echo 'Could not resolve'; exit 100")
    with pytest.raises(SystemExit):
        fresh.load().install_ensurepip()
    assert capfd.readouterr().err.splitlines()[-2:] == [
        "Could not resolve", "fab: python3-venv could not be installed: check the package "
        "sources, then: apt-get update"]


def seconds(command: list[str | Path]) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def test_once_there_is_an_environment_the_script_costs_little(prepared: Checkout) -> None:
    python = prepared.root / ".venv" / "bin" / "python"
    # Side by side, so that whatever else the machine does slows both.
    pairs = [(seconds([sys.executable, prepared.root / "fab", "status"]),
              seconds([python, "-m", "fabric", "status"])) for _ in range(7)]
    overhead = statistics.median(ours - fabrics for ours, fabrics in pairs)
    fabric_alone = statistics.median(fabrics for _, fabrics in pairs)
    assert overhead < max(0.3, 3 * fabric_alone)
