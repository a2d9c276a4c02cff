"""./fab makes its environment once, keeps it complete, and then starts Fabric.

The checkout is a copy of the script with its own lock files. They name a small package
that replaces Fabric and prints its arguments. Python's venv and pip are real, but need
no network for it.
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

from stack.inventory.settings import ROOT
from tests.support.executables import executable

# These tests make real environments, which takes a while.
pytestmark = pytest.mark.service

LOCK_FILES = ("requirements.fab.txt", "requirements.txt", "requirements.server.txt",
              "requirements.test.txt")
PREPARING = "fab: preparing .venv from requirements.fab.txt\n"
PYTHON = f"python {sys.version_info.major}.{sys.version_info.minor}"
# Prints how it was started, and exits with the number after "exit".
FABRIC = """
import json, sys
print(json.dumps(sys.argv))
sys.exit(int(sys.argv[-1]) if "exit" in sys.argv else 0)
"""


@dataclass(frozen=True)
class Checkout:
    """A copy of ./fab with its own lock files."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def stamp_file(self) -> Path:
        return self.venv / "requirements.sha256"

    @property
    def stamp(self) -> list[str]:
        return self.stamp_file.read_text().splitlines()

    def line(self, name: str) -> str:
        """Return a lock file's line in the stamp."""
        return f"{name} {hashlib.sha256((self.root / name).read_bytes()).hexdigest()}"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ./fab in a new process group."""
        return subprocess.Popen(
            [sys.executable, self.root / "fab", *arguments], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ./fab until it ends."""
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
    """Write a lock file whose packages come only from the checkout's wheels."""
    (root / name).write_text("\n".join(
        ["--no-index", f"--find-links {root / 'wheels'}", *packages]) + "\n")


def fill(root: Path) -> Checkout:
    """Make a checkout in which ./fab has never run."""
    root.mkdir(exist_ok=True)
    shutil.copy(ROOT / "fab", root / "fab")
    (root / "fabfile.py").write_text("import fabric.__main__\n")
    wheels = root / "wheels"
    lock(root, "requirements.fab.txt", wheel(wheels, "fabric", "1.0", __main__=FABRIC))
    lock(root, "requirements.txt", wheel(wheels, "flask", "1.0", __init__=""))
    lock(root, "requirements.server.txt", wheel(wheels, "uwsgi", "1.0", __init__=""))
    lock(root, "requirements.test.txt", wheel(wheels, "pytest", "1.0", __init__=""))
    return Checkout(root)


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    return fill(tmp_path / "checkout")


@dataclass(frozen=True)
class FirstRuns:
    """The results of two first runs, started together in one checkout."""

    checkout: Checkout
    codes: list[int]
    said: list[tuple[str, str]]


@pytest.fixture(scope="module")
def first_runs(tmp_path_factory: pytest.TempPathFactory) -> FirstRuns:
    checkout = fill(tmp_path_factory.mktemp("used") / "checkout")
    both = [checkout.start("bootstrap", "deploy") for _ in range(2)]
    said = [each.communicate(timeout=120) for each in both]
    return FirstRuns(checkout, [each.returncode for each in both], said)


@pytest.fixture
def used(first_runs: FirstRuns) -> Checkout:
    """A checkout in which ./fab has run before, for tests that don't change it."""
    return first_runs.checkout


@pytest.fixture
def prepared(first_runs: FirstRuns, tmp_path: Path) -> Checkout:
    """The test's own checkout in which ./fab has run before."""
    root = tmp_path / "prepared"
    shutil.copytree(first_runs.checkout.root, root, symlinks=True, copy_function=copied)
    return Checkout(root)


def copied(source: str, target: str) -> None:
    """Copy a file; link a package's file, since pip replaces files and never writes into them."""
    (os.link if "site-packages" in source else shutil.copy2)(source, target)


def has(checkout: Checkout, package: str) -> bool:
    python = checkout.venv / "bin" / "python"
    return subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode == 0


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill_when(checkout: Checkout, condition: Callable[[], bool]) -> None:
    """Start ./fab, and kill it with its children once a condition is true."""
    started = checkout.start("status")
    wait_for(lambda: condition() or started.poll() is not None)
    assert started.poll() is None
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()


def mark(checkout: Checkout) -> Path:
    """Leave a file in the environment that disappears when the environment is made again."""
    path = checkout.venv / "marker"
    path.touch()
    return path


def begins_anew(checkout: Checkout) -> None:
    """Check that ./fab makes a new environment instead of updating the existing one."""
    marker = mark(checkout)
    kill_when(checkout, lambda: not marker.exists())
    assert not checkout.stamp_file.exists()


def test_the_first_run_makes_the_environment_and_starts_fabric(first_runs: FirstRuns) -> None:
    checkout = first_runs.checkout
    assert first_runs.codes == [0, 0]
    assert [json.loads(stdout) for stdout, _ in first_runs.said] \
        == [[f"{checkout.root}/fabfile.py", "bootstrap", "deploy"]] * 2
    assert checkout.stamp == [PYTHON, checkout.line("requirements.fab.txt")]


def test_one_of_two_first_runs_prepares_and_the_other_waits(first_runs: FirstRuns) -> None:
    assert sorted(stderr for _, stderr in first_runs.said) == ["", PREPARING]


def test_a_later_run_prepares_nothing(used: Checkout) -> None:
    done = used.run("logs", "--service", "app and more")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[1:] == ["logs", "--service", "app and more"]


def test_the_exit_code_is_fabrics(used: Checkout) -> None:
    assert [used.run("exit", code).returncode for code in ("0", "1", "7")] == [0, 1, 7]


def test_it_can_be_called_from_any_folder(
        used: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(used.run("status").stdout)[0] == f"{used.root}/fabfile.py"


def test_a_changed_lock_file_is_installed(prepared: Checkout) -> None:
    newer = wheel(prepared.root / "wheels", "fabric", "2.0", __main__="print('newer')")
    lock(prepared.root, "requirements.fab.txt", newer)
    marker = mark(prepared)
    done = prepared.run("status")
    assert (done.stdout, done.stderr) == ("newer\n", PREPARING)
    assert prepared.stamp == [PYTHON, prepared.line("requirements.fab.txt")]
    assert marker.exists()


def test_a_package_that_a_lock_file_adds_is_installed(prepared: Checkout) -> None:
    wheels = prepared.root / "wheels"
    lock(prepared.root, "requirements.fab.txt", wheel(wheels, "fabric", "1.0", __main__=FABRIC),
         wheel(wheels, "extra", "1.0", __init__=""))
    assert not has(prepared, "extra")
    assert prepared.run("status").returncode == 0
    assert has(prepared, "extra")


@pytest.mark.parametrize("task", ["test", "test.unit"])
def test_testing_installs_more_and_keeps_the_operators_packages(
        prepared: Checkout, task: str) -> None:
    done = prepared.run(task)
    assert done.stderr == f"fab: preparing .venv from {', '.join(LOCK_FILES)}\n"
    assert prepared.stamp == [PYTHON, *(prepared.line(name) for name in LOCK_FILES)]
    assert has(prepared, "flask") and has(prepared, "pytest")
    assert prepared.run("status").stderr == prepared.run(task).stderr == ""


def test_a_change_for_operating_keeps_the_testers_packages(prepared: Checkout) -> None:
    assert prepared.run("test").returncode == 0
    newer = wheel(prepared.root / "wheels", "fabric", "2.0", __main__=FABRIC)
    lock(prepared.root, "requirements.fab.txt", newer)
    assert prepared.run("status").stderr == PREPARING
    assert sorted(prepared.stamp) == sorted(
        [PYTHON, *(prepared.line(name) for name in LOCK_FILES)])
    assert prepared.run("test").stderr == ""


def test_operating_installs_nothing_for_tests(used: Checkout) -> None:
    assert not has(used, "flask") and not has(used, "pytest")


def test_a_package_with_another_hash_is_not_installed(prepared: Checkout) -> None:
    newer = wheel(prepared.root / "wheels", "fabric", "2.0", __main__=FABRIC)
    lock(prepared.root, "requirements.fab.txt", newer[:-64] + "0" * 64)
    done = prepared.run("status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "fab: the requirements could not be installed, see above: once that is mended, or the "
        "package index can be reached, run the same command again")
    assert not prepared.stamp_file.exists()


def test_a_package_without_a_hash_is_not_installed(prepared: Checkout) -> None:
    newer = wheel(prepared.root / "wheels", "fabric", "2.0", __main__=FABRIC)
    lock(prepared.root, "requirements.fab.txt", newer.split(" --hash")[0])
    done = prepared.run("status")
    assert done.returncode == 1 and "Hashes are required" in done.stderr


def test_the_next_run_recovers_from_a_failed_and_a_killed_one(prepared: Checkout) -> None:
    lock(prepared.root, "requirements.fab.txt", f"fabric==9.0 --hash=sha256:{'0' * 64}")
    assert prepared.run("status").returncode == 1
    lock(prepared.root, "requirements.fab.txt",
         wheel(prepared.root / "wheels", "fabric", "1.0", __main__=FABRIC))
    begins_anew(prepared)
    done = prepared.run("status")
    assert (done.returncode, done.stderr) == (0, PREPARING)
    assert prepared.stamp == [PYTHON, prepared.line("requirements.fab.txt")]


def test_a_run_killed_during_installation_starts_over(prepared: Checkout) -> None:
    newer = wheel(prepared.root / "wheels", "fabric", "2.0", __main__=FABRIC)
    lock(prepared.root, "requirements.fab.txt", newer)
    kill_when(prepared, lambda: not prepared.stamp_file.exists())
    assert not prepared.stamp_file.exists()
    begins_anew(prepared)


def test_an_environment_of_another_python_is_made_again(prepared: Checkout) -> None:
    prepared.stamp_file.write_text(f"python 3.0\n{prepared.line('requirements.fab.txt')}\n")
    begins_anew(prepared)


def test_an_environment_without_pip_is_made_again(prepared: Checkout) -> None:
    for folder in (prepared.venv / "lib").glob("python*/site-packages/pip"):
        shutil.rmtree(folder)
    lock(prepared.root, "requirements.fab.txt",
         wheel(prepared.root / "wheels", "fabric", "2.0", __main__=FABRIC))
    with prepared.stamp_file.open("a") as stamp:
        stamp.write("requirements.txt of what is lost with it\n")
    done = prepared.run("status")
    assert (done.returncode, done.stderr) == (0, PREPARING)
    assert has(prepared, "pip")
    assert prepared.stamp == [PYTHON, prepared.line("requirements.fab.txt")]


def test_another_users_checkout_is_refused_with_the_remedy(fresh: Checkout) -> None:
    fresh.root.chmod(0o555)
    # Root may write to any folder unless it drops that capability.
    humble = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    done = subprocess.run([*humble, sys.executable, fresh.root / "fab", "status"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"fab: {fresh.root}/.venv.lock belongs to another user: "
                           f"take it over with: sudo chown -R $USER {fresh.root}\n")


@pytest.mark.parametrize("name", LOCK_FILES)
def test_a_missing_lock_file_is_refused_with_the_remedy(fresh: Checkout, name: str) -> None:
    (fresh.root / name).unlink()
    done = fresh.run("test")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"fab: {name}: No such file or directory: "
                           f"restore it with: git checkout -- {name}\n")
    assert not fresh.venv.exists()


def test_an_old_python_is_refused_with_the_needed_version(fresh: Checkout) -> None:
    older = ("import runpy, sys; sys.version_info = (3, 9, 2); "
             f"sys.argv = ['fab', 'status']; runpy.run_path({str(fresh.root / 'fab')!r}, "
             "run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", older], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("fab: Python 3.11 or newer is needed, this is 3.9: install it and run "
                           "it with ./fab as its first argument\n")
    assert not fresh.venv.exists()


def test_an_old_python_can_parse_the_script() -> None:
    ast.parse((ROOT / "fab").read_text(), feature_version=(3, 5))


def test_the_script_needs_only_the_standard_library() -> None:
    nodes = list(ast.walk(ast.parse((ROOT / "fab").read_text())))
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported and imported <= sys.stdlib_module_names


def test_a_lock_files_line_is_its_name_and_the_hash_of_its_text(fresh: Checkout) -> None:
    (fresh.root / "requirements.txt").write_bytes(b"")
    assert fresh.load().line("requirements.txt") == (
        "requirements.txt e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_an_environment_without_a_stamp_counts_as_empty(fresh: Checkout) -> None:
    assert fresh.load().installed() == []


def ends(call: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line on stderr of a call that must end the script with 1."""
    with pytest.raises(SystemExit) as raised:
        call()
    assert raised.value.code == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_without_ensurepip_and_apt_the_missing_package_is_named(
        fresh: Checkout, no_commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(lambda: fresh.load().install_packages("python3-venv"), capsys) == (
        "fab: missing, under the names that your system gives them: python3-venv")


def test_debians_package_is_installed_quietly(
        fresh: Checkout, no_commands: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    executable(no_commands / "apt-get", "exit 1")
    executable(no_commands / "sudo", f'echo "$*" >> {no_commands}/said')
    fresh.load().install_packages("python3-venv")
    assert (no_commands / "said").read_text().splitlines() == [
        "env DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 update",
        "env DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 install --yes "
        "--no-install-recommends python3-venv"]
    assert capsys.readouterr() == ("", "fab: installing python3-venv\n")


def test_only_the_servers_lock_file_needs_a_compiler(
        prepared: Checkout, no_commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fab = prepared.load()
    fab.install(["requirements.txt"], [PYTHON])
    assert has(prepared, "flask")
    assert ends(lambda: fab.install(["requirements.txt", "requirements.server.txt"], [PYTHON]),
                capsys) == ("fab: missing, under the names that your system gives them: "
                            "gcc libc6-dev python3-dev")


def test_a_user_without_sudo_is_told_what_root_should_run(
        fresh: Checkout, no_commands: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    executable(no_commands / "apt-get", "exit 1")
    assert ends(lambda: fresh.load().install_packages("gcc", "python3-dev"), capsys) == (
        "fab: gcc python3-dev missing and there is no sudo: as root, run: "
        "apt-get install gcc python3-dev")


def test_unreachable_package_sources_are_quoted(
        fresh: Checkout, no_commands: Path, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    executable(no_commands / "apt-get", "exit 1")
    executable(no_commands / "sudo", "echo 'Could not resolve'; exit 100")
    with pytest.raises(SystemExit):
        fresh.load().install_packages("python3-venv")
    assert capfd.readouterr().err.splitlines()[-2:] == [
        "Could not resolve", "fab: python3-venv could not be installed: check the package "
        "sources, then: apt-get update"]


def seconds(command: list[str | Path]) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def test_with_an_environment_the_script_costs_little(used: Checkout) -> None:
    python = used.venv / "bin" / "python"
    # In pairs, so that other load on the machine slows both.
    pairs = [(seconds([sys.executable, used.root / "fab", "status"]),
              seconds([python, used.root / "fabfile.py", "status"])) for _ in range(7)]
    overhead = statistics.median(ours - fabrics for ours, fabrics in pairs)
    fabric_alone = statistics.median(fabrics for _, fabrics in pairs)
    assert overhead < max(0.3, 3 * fabric_alone)
