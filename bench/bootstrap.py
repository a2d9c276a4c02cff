"""Compare ./fab bootstrap with an Ansible playbook that makes the same Swarm.

    pip install --require-hashes -r requirements.fab.txt -r bench/requirements.txt
    sudo python bench/bootstrap.py

Two times three machines boot in the lab, all from the project's user-data. Ansible has three of
them, ./fab the others; what the two have made is compared before a figure is printed. Only one
of them works at a time, and the playbook goes first, while the other machines are idle.

Not counted, for either: the boot, the environment of ./fab, and compiling Python sources. What
Ansible's modules need on the machines is there before it begins, and its connections stay open
from one run to the next; ./fab makes its own each time.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from measure import Calm, Failed, loads, parser

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, Python looks for modules beside it only.
sys.path.insert(0, str(ROOT))

from stack.commands import cloud_init  # noqa: E402
from tests.lab import Lab, LabError, Machine  # noqa: E402

REQUIRED = 5.0
PLAYBOOK = ROOT / "bench/ansible/swarm.yml"
CONFIG = ROOT / "bench/ansible/ansible.cfg"
# The step of ./fab bootstrap at which both have made the same.
LAST_COMMON = "secrets"
# What ./fab bootstrap gives three managers if their inventory names no labels.
LABELS = ({"edge": "true", "postgres": "true", "registry": "true"},
          {"edge": "true"}, {"edge": "true"})
# A step that ends: its name, maybe its machine, what came of it and the seconds.
STEP = re.compile(r"  (\S+(?: \S+)*)  +(.*) \(\d+\.\d s\)")
# Their outcome is what was found, not what was changed.
LOOKING = {"preflight"}
RECAP = re.compile(r"\S+ +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)")
# One line a node, without its name; then the address pool, the secrets, the firewall's peers.
MADE = """
docker node inspect $(docker node ls --quiet) --format \
    '{{.Spec.Role}} {{.Status.State}} {{json .Spec.Labels}}' | sort
docker info --format \
    '{{.Swarm.NodeAddr}} {{.Swarm.Cluster.DefaultAddrPool}} {{.Swarm.Cluster.SubnetSize}}' |
    cut -d' ' -f2-
docker secret ls --format '{{.Name}}' | grep -oE '^tally-(app-password|owner-password|visitor-key)'
for peer in $(grep '^[0-9]' /etc/tally/peers); do
    nft get element inet tally peers4 "{ $peer }" > /dev/null && echo a peer is let in
done
"""


@dataclass(frozen=True)
class Run:
    """How long a command took, and after how many seconds it printed each line.

    `load` is the computer's when it began: what else went on.
    """

    seconds: float
    load: float
    lines: tuple[tuple[float, str], ...]

    def __str__(self) -> str:
        return f"{self.seconds:.1f} (load {self.load:.1f})"

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def until(self, step: str) -> float:
        """Return when ./fab said that a step had ended; raises Failed if it never did."""
        for seconds, line in self.lines:
            if (found := STEP.fullmatch(line)) and found[1] == step:
                return seconds
        raise Failed(f"./fab bootstrap has no step {step!r} any more:\n{self.text}")


@dataclass(frozen=True, eq=False)
class Contestant:
    """One of the two, with its command and the proof that a run changed nothing."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    machines: Sequence[Machine]
    changes: Callable[[str], list[str]]

    def run(self) -> Run:
        """Run the command to its end and time it; raises Failed, with what it said."""
        load, begun = os.getloadavg()[0], time.monotonic()
        with subprocess.Popen(self.command, env={**os.environ, **self.env}, cwd=ROOT, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            try:
                lines = [(time.monotonic() - begun, line.rstrip()) for line in process.stdout]
            except BaseException:
                process.terminate()
                raise
        done = Run(time.monotonic() - begun, load, tuple(lines))
        if process.returncode != 0:
            raise Failed(f"{self.name} ended with {process.returncode}:\n{done.text}")
        return done

    def run_unchanged(self) -> Run:
        """Run the command; raises Failed if it changed something."""
        done = self.run()
        if changes := self.changes(done.text):
            raise Failed("\n".join([f"{self.name} changed something:", *changes]))
        return done


def main() -> None:
    """Measure and print; exit 1 below the required ratio, or if a command fails."""
    given = _arguments()
    try:
        with tempfile.TemporaryDirectory() as folder, Lab() as lab:
            ratio = compare(lab, Path(folder), given)
    except (Failed, LabError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; the machines are gone")
    if ratio < REQUIRED:
        sys.exit(f"bench: ./fab bootstrap should be {REQUIRED:g} times as fast when nothing "
                 f"changes, and is {ratio:.1f}")


def _arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3, metavar="N",
                         help="runs of each that change nothing (default: 3)")
    return options.parse_args()


def compare(lab: Lab, folder: Path, given: argparse.Namespace) -> float:
    """Let both work; return how many times as fast ours is when nothing changes."""
    calm = Calm.chosen(given)
    user_data = with_modules(cloud_init.render(lab.public_key))
    calm.wait()
    # Six at once, all of which upgrade their packages, may need longer than the lab waits.
    machines = [machine for name in ("ansible", "fab") for machine in lab.boot(
        user_data=user_data, names=[f"{name}{number}" for number in (1, 2, 3)])]
    with ansible(lab, folder / "ansible", machines[:3]) as theirs:
        ours = fab(lab, folder / "fab", machines[3:])
        warm_up(ours, theirs)
        # Booting six machines is work as well.
        calm.wait()
        print(surroundings(machines[0]), flush=True)
        compare_fresh(ours, theirs)
        return compare_unchanged(ours, theirs, given.rounds, calm)


def with_modules(user_data: str) -> str:
    """Add what community.docker needs on the machines."""
    content = yaml.safe_load(user_data)
    content["packages"].append("python3-docker")
    return cloud_init.HEADER + yaml.safe_dump(content)


@contextmanager
def ansible(lab: Lab, folder: Path, machines: Sequence[Machine]) -> Iterator[Contestant]:
    """Prepare the playbook for these machines; end the connections that it keeps."""
    program = Path(sys.executable).with_name("ansible-playbook")
    if not program.exists():
        raise Failed(f"there is no {program}: pip install --require-hashes "
                     "-r bench/requirements.txt")
    hosts = {machine.name: {"ansible_host": machine.address, "private": machine.address,
                            "labels": labels} for machine, labels in zip(machines, LABELS)}
    inventory = write(folder / "inventory.yml", {"managers": {"hosts": hosts, "vars": {
        "ansible_user": "deploy", "ansible_ssh_private_key_file": str(lab.private_key),
        "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={lab.known_hosts}",
        "secrets": str(folder / "secrets")}}})
    sockets = folder / "cp"
    env = {"ANSIBLE_CONFIG": str(CONFIG), "ANSIBLE_HOME": str(folder), "ANSIBLE_NOCOLOR": "1",
           "ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets), "LC_ALL": "C.UTF-8"}
    command = (str(program), f"--inventory={inventory}", str(PLAYBOOK))
    try:
        yield Contestant("ansible-playbook", command, env, machines, changed_hosts)
    finally:
        for socket in sockets.glob("*"):
            subprocess.run(["ssh", "-F", "none", f"-oControlPath={socket}", "-O", "exit", "it"],
                           capture_output=True, check=False)


def fab(lab: Lab, folder: Path, machines: Sequence[Machine]) -> Contestant:
    """Prepare ./fab for these machines."""
    inventory = write(folder / "inventory.yml", {
        "name": "bench", "ssh": {"user": "deploy", "key": str(lab.private_key)},
        "nodes": [{"host": machine.address, "private": machine.address, "role": "manager"}
                  for machine in machines]})
    return Contestant("./fab bootstrap", ("./fab", "bootstrap", "--accept-new-host-keys"),
                      {"INVENTORY": str(inventory)}, machines, changed_steps)


def write(path: Path, content: dict[str, Any]) -> Path:
    """Write an inventory."""
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def changed_hosts(text: str) -> list[str]:
    """Return the hosts of the playbook's recap on which something changed or failed."""
    found = list(RECAP.finditer(text))
    if len(found) != len(LABELS):
        return [text]
    return [each[0] for each in found if any(int(number) for number in each.groups()[1:])]


def changed_steps(text: str) -> list[str]:
    """Return the lines of ./fab's steps that changed something."""
    found = [step for line in text.splitlines() if (step := STEP.fullmatch(line))]
    if LAST_COMMON not in {step[1] for step in found}:
        return [text]
    return [step[0] for step in found if step[1] not in LOOKING and step[2] != "unchanged"]


def warm_up(ours: Contestant, theirs: Contestant) -> None:
    """Make the environment of ./fab, and let both compile what they are made of."""
    for one, command in ((ours, ["./fab", "--list"]), (theirs, [*theirs.command,
                                                                "--syntax-check"])):
        done = subprocess.run(command, env={**os.environ, **one.env}, cwd=ROOT, text=True,
                              capture_output=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{command}: {done.stdout}{done.stderr}")


def surroundings(machine: Machine) -> str:
    """Say what was measured, and where."""
    docker = machine.console(["docker", "version", "--format={{.Server.Version}}"]).stdout.strip()
    system = machine.console(". /etc/os-release; echo $PRETTY_NAME").stdout.strip()
    listed = subprocess.run([Path(sys.executable).with_name("ansible-galaxy"), "collection",
                             "list", "community.docker"], capture_output=True, text=True,
                            check=True).stdout
    collection = re.search(r"^(community\.docker +\S+)", listed, re.MULTILINE)
    return "\n".join([
        f"{os.cpu_count()} cores, {loads()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}",
        f"ansible-core {version('ansible-core')}, {collection[1] if collection else listed}; "
        f"fabric {version('fabric')}, paramiko {version('paramiko')}",
        f"each three machines: {system}, Docker {docker}"])


def compare_fresh(ours: Contestant, theirs: Contestant) -> None:
    """Let both make a Swarm, see that it is the same one, and print the times."""
    their_run, our_run = theirs.run(), ours.run()
    made = {made_by(theirs), made_by(ours)}
    if len(made) > 1:
        raise Failed("they haven't made the same:\n" + "\n".join(made))
    our_seconds = our_run.until(LAST_COMMON)
    print("\nThree fresh machines become one Swarm, with labels and secrets:")
    print(f"  {theirs.name:<18} {their_run.seconds:6.1f} s  the whole playbook: {their_run}")
    print(f"  {ours.name:<18} {our_seconds:6.1f} s  until its line {LAST_COMMON!r}; with what the "
          f"playbook doesn't do,\n{'':<30}the base image, the volume and the registry: {our_run}")
    print(f"  {'ratio':<18} {their_run.seconds / our_seconds:6.1f}", flush=True)


def made_by(one: Contestant) -> str:
    """Return what there is to be seen of a Swarm on its first machine."""
    return one.machines[0].console(["bash", "-euo", "pipefail", "-c", MADE]).stdout


def compare_unchanged(ours: Contestant, theirs: Contestant, rounds: int, calm: Calm) -> float:
    """Let both find nothing to do, in turn; print the times and return the ratio."""
    runs: dict[Contestant, list[Run]] = {theirs: [], ours: []}
    for _ in range(rounds):
        calm.wait()
        for one, done in runs.items():
            done.append(one.run_unchanged())
    print("\nA whole run that changes nothing:")
    for one, done in runs.items():
        print(f"  {one.name:<18} {median(done):6.1f} s  median of {', '.join(map(str, done))}")
    ratio = median(runs[theirs]) / median(runs[ours])
    print(f"  {'ratio':<18} {ratio:6.1f}    at least {REQUIRED:g} is required", flush=True)
    return ratio


def median(runs: Sequence[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


if __name__ == "__main__":
    main()
