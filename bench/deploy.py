"""Compare ./fab deploy with what people type without it.

    pip install --require-hashes -r requirements.fab.txt
    sudo python bench/deploy.py

Three machines boot in the lab and become a Swarm with the site.

First, a template changes by one line, again and again. The bare sequence is docker build, docker
push and docker stack deploy --detach=false, typed on a manager. Meanwhile somebody looks when the
new tasks run; when Swarm calls the update completed, having watched them for the ten seconds that
the stack file asks for; and when Docker's own command has waited long enough for all services.
./fab deploy does it from a laptop, migrates, and goes on until the release is proven, which takes
those ten seconds as well. Both have the same caches.

Then ./fab changes what runs in other ways, again and again, while visitors open the page fifty
times a second.

At last come rolling updates in a row, of two tasks, under the same visitors: by ./fab deploy, and
by docker stack deploy with Traefik's defaults (it asks Swarm every fifteen seconds, and tries no
other task) and an application that ends as soon as it is told to. All else in the stack is the
same.
"""

import argparse
import base64
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Calm, Failed, loads, parser

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, Python looks for modules beside it only.
sys.path.insert(0, str(ROOT))

from stack.commands import cloud_init  # noqa: E402
from stack.swarm.stackfile import Stack  # noqa: E402
from tests.e2e import crowd  # noqa: E402
from tests.e2e.cluster import entry  # noqa: E402
from tests.e2e.crowd import Visitor  # noqa: E402
from tests.e2e.laptop import Laptop, new_laptop  # noqa: E402
from tests.e2e.site import Site, bare_clone  # noqa: E402
from tests.lab import CommandFailed, Lab, LabError, Machine  # noqa: E402

MOST = 1.25
VISITORS = 5  # Each of them comes ten times a second.
# Seconds after which a visitor has lost patience.
HUNG = 5.0
TEMPLATE = "app/templates/base.html"
LAST_RECORD = "docker config inspect --format '{{json .Spec.Data}}' " \
    "$(docker config ls --quiet --filter label=tally.release) | tail --lines=1"
CREDENTIALS = "docker --config /etc/tally/docker"
COMPLETED = """
until [ "$(docker service inspect --format '{{.UpdateStatus.State}}' tally_app)" = completed ]
do sleep 0.2; done
"""
# Given the image's name; the checkout and the stack file, which names the image, are there.
# Prints after how many seconds each of MILESTONES was reached.
BARE = """
set -eu
began=$(date +%%s.%%N)
reached() { echo "$(date +%%s.%%N) - $began" | awk '{print $1 - $3}'; }
running() {
    docker service ps --filter desired-state=running --format '{{.Image}} {{.CurrentState}}' \
        tally_app
}
cd /root/bare
DOCKER_BUILDKIT=1 docker build --quiet \
    --secret id=ca-bundle,src=/etc/ssl/certs/ca-certificates.crt \
    --build-arg BASE=localhost:1/tally/base:trixie --build-arg VERSION=bare \
    --build-arg COMMIT=bare --tag "$1" . > /dev/null
%(credentials)s push --quiet "$1" > /dev/null
%(credentials)s stack deploy --with-registry-auth --detach=false --compose-file /tmp/stack.yml \
    tally > /dev/null &
deploy=$!
until [ "$(running | grep --count --fixed-strings "$1 Running")" = 2 ]; do
    kill -0 $deploy || { wait $deploy; exit 1; }
    sleep 0.2
done
reached
%(completed)s
reached
wait $deploy
reached
""" % {"credentials": CREDENTIALS, "completed": COMPLETED}
MILESTONES = ("bare, tasks run", "bare, completed", "bare, --detach=false")
# Those that tell what a deploy tells: that the tasks stayed up for as long as the stack asks.
WATCHED = MILESTONES[1:]
# Traefik polls Swarm as often as it does by itself, and nobody waits until it has.
DEFAULTS = (
    ("stack/images/traefik/traefik.yml", "refreshSeconds: 1\n", "refreshSeconds: 15\n"),
    ("docker-stack.yml", 'DRAIN_SECONDS: "4"', 'DRAIN_SECONDS: "0"'),
    ("docker-stack.yml", "        traefik.http.routers.app.middlewares: again\n", ""),
    ("docker-stack.yml", "        traefik.http.routers.app-tls.middlewares: again\n", ""))
PLAIN = f"""
set -eu
{CREDENTIALS} stack deploy --with-registry-auth --compose-file /tmp/stack.yml tally
sleep 1
{COMPLETED}
"""


def main() -> None:
    """Measure and print; exit 1 if ./fab is too slow or turned a visitor away."""
    given = _arguments()
    try:
        with tempfile.TemporaryDirectory() as folder, Lab() as lab:
            faults = compare(lab, Path(folder), given)
    except (Failed, LabError, CommandFailed) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; the machines are gone")
    if faults:
        sys.exit("\n".join(f"bench: {fault}" for fault in faults))


def _arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3, metavar="N",
                         help="changes of the template by each (default: 3)")
    options.add_argument("--updates", type=int, default=20, metavar="N",
                         help="rolling updates by each (default: 20)")
    options.add_argument("--changes", type=int, default=20, metavar="N",
                         help="rollbacks, drained nodes and scalings (default: 20)")
    return options.parse_args()


@dataclass(frozen=True)
class Swarm:
    """Three managers with the site, and the laptop that deployed it."""

    laptop: Laptop
    machines: Sequence[Machine]

    @property
    def first(self) -> Machine:
        """The manager that has the registry, where images are built."""
        return self.machines[0]

    @property
    def edges(self) -> list[Site]:
        return [Site(machine.address, self.laptop.shell) for machine in self.machines]

    def fab(self, arguments: str, env: str = "") -> str:
        """Run ./fab on the laptop; raises Failed, with what it said."""
        done = self.laptop.shell(f"cd tally && {env} ./fab {arguments}", 900)
        if done.code != 0:
            raise Failed(f"./fab {arguments} ended with {done.code}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def record(self) -> dict[str, Any]:
        """Return the stack of the release that was proven last."""
        said = json.loads(self.first.console(LAST_RECORD).stdout)
        content: dict[str, Any] = json.loads(base64.b64decode(said))["content"]
        return content

    def hand_over(self, content: dict[str, Any]) -> None:
        """Write a stack file where docker stack deploy finds it."""
        path = self.laptop.home / "stack.yml"
        path.write_text(Stack(content).text())
        self.first.copy_in(path, "/tmp/stack.yml", user="deploy")


def compare(lab: Lab, folder: Path, given: argparse.Namespace) -> list[str]:
    """Measure all; return what isn't as it should be."""
    calm = Calm.chosen(given)
    calm.wait()
    swarm = built(lab, folder)
    calm.wait()
    print(f"three machines on this one: {loads()}", flush=True)
    addresses = iter(lab.client_addresses)

    def strangers() -> list[str]:
        return [next(addresses) for _ in range(VISITORS)]
    return [*compare_speed(swarm, given.rounds, calm),
            *change_otherwise(swarm, given.changes, strangers),
            *compare_updates(swarm, given.updates, strangers)]


def built(lab: Lab, folder: Path) -> Swarm:
    """Boot the machines, and deploy the site from a fresh clone."""
    machines = lab.boot(user_data=cloud_init.render(lab.public_key),
                        names=["node1", "node2", "node3"])
    repository = bare_clone(ROOT, folder)
    laptop = new_laptop(folder / "laptop", repository, lab.private_key)
    laptop.choose([entry(machine) for machine in machines])
    swarm = Swarm(laptop, machines)
    swarm.fab("bootstrap --accept-new-host-keys deploy")
    swarm.first.copy_in(repository, "/tmp/bare.git", user="deploy")
    swarm.first.console("chown -R root /tmp/bare.git; git clone --quiet /tmp/bare.git /root/bare")
    return swarm


def compare_speed(swarm: Swarm, rounds: int, calm: Calm) -> list[str]:
    """Let both bring in one-line changes in turn; print the times."""
    content = swarm.record()
    name = content["services"]["app"]["image"].partition("/app:")[0]
    bare, ours, said = [], [], list[str]()
    for number in range(rounds):
        image = f"{name}/app:bare-{number}"
        swarm.first.console(f"cd /root/bare && sed --in-place 's|</main>|<p>{number}</p></main>|' "
                            f"{TEMPLATE}")
        changed = deepcopy(content)
        changed["services"]["app"]["image"] = image
        swarm.hand_over(changed)
        calm.wait()
        bare.append([float(seconds) for seconds in
                     swarm.first.console(["sh", "-c", BARE, "bare", image]).stdout.split()])
        page = swarm.laptop.folder / TEMPLATE
        page.write_text(page.read_text().replace("</main>", f"<p>{number}</p></main>"))
        calm.wait()
        ours.append(timed(lambda: said.append(swarm.fab("deploy --json"))))
    print("\nA template changes by one line:")
    median = {}
    for who, seconds in (*zip(MILESTONES, zip(*bare)), ("./fab deploy", tuple(ours))):
        median[who] = statistics.median(seconds)
        print(f"  {who:<20} {median[who]:6.1f} s  median of "
              f"{', '.join(f'{each:.1f}' for each in seconds)}")
    ratios = {who: median["./fab deploy"] / median[who] for who in MILESTONES}
    for who, ratio in ratios.items():
        print(f"  ratio to {who:<20} {ratio:5.2f}"
              f"{f', at most {MOST:g}' if who in WATCHED else ''}")
    print(f"  the last one's steps: {steps(said[-1])}", flush=True)
    return [f"./fab deploy should take at most {MOST:g} times as long as {who}, and takes "
            f"{ratios[who]:.2f}" for who in WATCHED if ratios[who] > MOST]


def steps(report: str) -> str:
    """Return the steps of a deploy that took a while, with their seconds."""
    return ", ".join(f"{step['name']} {step['seconds']:.1f}" for step in json.loads(report)["steps"]
                     if step["seconds"] >= 0.1)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that work took."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def change_otherwise(swarm: Swarm, changes: int, strangers: Callable[[], list[str]]) -> list[str]:
    """Roll back, empty a node and scale, while visitors come; print what these met."""
    print(f"\n{changes} times each, while visitors open the page:", flush=True)
    other, faults = swarm.machines[2].address, []
    for who, commands in (
            # From one rollback to the next it would go back further.
            ("./fab rollback", ["rollback", "deploy"]),
            ("./fab node.drain", [f"node.drain {other}", f"node.activate {other}"]),
            ("./fab scale", ["scale app=4", "scale app=2"])):
        # A drained edge answers nobody: its visitors are led to the others before.
        with crowd.crowd(swarm.edges[:2], strangers()) as visitors:
            for _ in range(changes):
                for command in commands:
                    swarm.fab(command)
        tell(who, visitors)
        faults += told_of(who, visitors)
    return faults


def compare_updates(swarm: Swarm, updates: int, strangers: Callable[[], list[str]]) -> list[str]:
    """Let both update again and again while visitors come; print what these met."""
    print(f"\n{updates} rolling updates in a row, while visitors open the page:", flush=True)
    with crowd.crowd(swarm.edges, strangers()) as ours:
        for number in range(updates):
            swarm.fab("deploy --probe-budget 0", env=f"USER_NAME='update {number}'")
    tell("./fab deploy", ours)
    let_defaults_in(swarm)
    content = swarm.record()
    with crowd.crowd(swarm.edges, strangers()) as plain:
        for number in range(updates):
            content["services"]["app"]["environment"]["USER_NAME"] = f"plain {number}"
            swarm.hand_over(content)
            swarm.first.console(PLAIN)
    tell("docker stack deploy", plain)
    return told_of("./fab deploy", ours)


def let_defaults_in(swarm: Swarm) -> None:
    """Deploy the stack as people have it who change nothing in Traefik."""
    for path, old, new in DEFAULTS:
        file = swarm.laptop.folder / path
        if old not in (text := file.read_text()):
            raise Failed(f"{path} hasn't {old.strip()!r} any more")
        file.write_text(text.replace(old, new))
    swarm.fab("deploy")


def tell(who: str, visitors: Sequence[Visitor]) -> None:
    """Print how many visits were answered, failed and hung."""
    failed = [failure for visitor in visitors for failure in visitor.failures]
    hung = sum(1 for failure in failed if waited(failure) >= HUNG)
    answered = sum(visitor.answered for visitor in visitors)
    print(f"  {who:<20} {answered + len(failed):6} requests, {len(failed)} failed, {hung} of them "
          f"after {HUNG:g} s or more; {len(uncounted(visitors))} visitors were counted wrongly",
          flush=True)


def waited(failure: str) -> float:
    """Return the seconds after which a visit failed."""
    return float(failure.partition(" after ")[2].partition(" s:")[0])


def uncounted(visitors: Sequence[Visitor]) -> list[Visitor]:
    """Return whose answered visits weren't counted once each; a failed one may have been."""
    return [visitor for visitor in visitors if not
            visitor.answered <= visitor.last <= visitor.answered + len(visitor.failures)]


def told_of(who: str, visitors: Sequence[Visitor]) -> list[str]:
    """Return a line if somebody was turned away or counted wrongly."""
    failures = [failure for visitor in visitors for failure in visitor.failures]
    if not failures and not uncounted(visitors):
        return []
    return [f"{who} should turn nobody away and count each visit once, and didn't: "
            f"{failures[:3] or uncounted(visitors)}"]


if __name__ == "__main__":
    main()
