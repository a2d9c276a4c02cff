"""Tally's tasks. Type ./fab --list, or ./fab --help TASK."""

from fabric import Connection, task
from invoke.collection import Collection

from stack import bootstrap as bootstrapping
from stack import cloud_init as preparing
from stack import destroy as destroying
from stack import lab
from stack import logs as reading
from stack import memory, nodes
from stack import plan as planning
from stack import release, rings
from stack import rollback as rolling_back
from stack import scaling, shell
from stack import status as watching


@task(help={"accept-new-host-keys": "trust machines that are new here, without asking"})
def bootstrap(context: Connection, accept_new_host_keys: bool = False) -> None:
    """Make the machines ready: Docker, one Swarm, secrets, images for all."""
    bootstrapping.bootstrap(accept_new_host_keys)


@task
def build(context: Connection) -> None:
    """Build this checkout's images without deploying them."""
    release.build_images()


@task(help={"sql": "also print the SQL of the migrations",
            "exit-code": "exit 2 if a deploy would change anything"})
def plan(context: Connection, sql: bool = False, exit_code: bool = False) -> None:
    """Show what a deploy would do, without doing it."""
    planning.plan(sql, exit_code)


@task(help={"probe-budget": "how many requests may fail meanwhile; any number if not given",
            "json": "print a report for programs to stdout, and all else to stderr"})
def deploy(context: Connection, probe_budget: str = "", json: bool = False) -> None:
    """Build, migrate, update and prove; give the old release back if that fails."""
    release.deploy(probe_budget, json)


@task(help={"to": "a version that ./fab releases lists as proven, instead of the one before",
            "json": "print a report for programs to stdout, and all else to stderr"})
def rollback(context: Connection, to: str = "", json: bool = False) -> None:
    """Bring the release before this one back, whole."""
    rolling_back.rollback(to, json)


@task
def status(context: Connection) -> None:
    """Show the release, its services and their tasks; exit 1 unless all is well."""
    watching.status()


@task(help={"service": "app, postgres, traefik or socket-proxy",
            "follow": "go on until Ctrl-C", "lines": "how many of the last lines"})
def logs(context: Connection, service: str, follow: bool = False, lines: str = "100") -> None:
    """Show a service's log, of all its tasks wherever they run."""
    reading.logs(service, follow, lines)


@task(name="exec", help={"service": "app, postgres, traefik or socket-proxy",
                         "command": "what to run; better typed after --"})
def execute(context: Connection, service: str, command: str = "sh") -> None:
    """Run a command in a service's container: ./fab exec app -- flask db current."""
    shell.execute(service, command)


@task(help={"machine": "its host in the inventory",
            "command": "what to run; better typed after --"})
def ssh(context: Connection, machine: str, command: str = "") -> None:
    """Log in to a machine of the inventory, or run a command on it after --."""
    shell.ssh(machine, command)


@task(help={"service": "app=N"})
def scale(context: Connection, service: str) -> None:
    """Run N tasks of the application, now and after each deploy: ./fab scale app=4."""
    scaling.scale(service)


@task(name="drain", help={"machine": "its host in the inventory, or the node's name or id",
                          "gap": "also stop what can run nowhere else, such as Postgres"})
def node_drain(context: Connection, machine: str, gap: bool = False) -> None:
    """Move a node's tasks to others, so that it can be rebooted or mended."""
    nodes.drain(machine, gap)


@task(name="activate", help={"machine": "its host in the inventory, or the node's name or id"})
def node_activate(context: Connection, machine: str) -> None:
    """Let a drained node have tasks again."""
    nodes.activate(machine)


@task(name="remove", help={"machine": "its host in the inventory, or the node's name or id"})
def node_remove(context: Connection, machine: str) -> None:
    """Take a node out of the Swarm for good, after moving its tasks."""
    nodes.remove(machine)


@task(help={"data": "remove the visits and the secrets as well", "yes": "don't ask"})
def destroy(context: Connection, data: bool = False, yes: bool = False) -> None:
    """Remove the stack after asking; its data stays unless you say --data."""
    destroying.destroy(data, yes)


@task(name="all", default=True)
def test_all(context: Connection) -> None:
    """Run every ring of tests; CI runs just this."""
    rings.run(*rings.EVERY)


@task(name="style")
def test_style(context: Connection) -> None:
    """Check the sources, the YAML, the Dockerfiles and the shell scripts."""
    rings.run(rings.STYLE)


@task(name="unit")
def test_unit(context: Connection) -> None:
    """Test pure functions, and the application on SQLite."""
    rings.run(rings.UNIT)


@task(name="service")
def test_service(context: Connection) -> None:
    """Test with a real PostgreSQL, MariaDB and sshd."""
    rings.run(rings.SERVICE)


@task(name="lab")
def test_lab(context: Connection) -> None:
    """Boot real machines and do the main job on them."""
    rings.run(rings.LAB)


@task(name="vm")
def test_vm(context: Connection) -> None:
    """Do the main job on a virtual machine with Debian's own kernel; takes long."""
    rings.run(rings.VM)


@task
def releases(context: Connection) -> None:
    """List the last releases, and the changes that failed, the newest first."""
    memory.releases()


@task(help={"key": "your public key's file; one of the usual in ~/.ssh if not given"})
def cloud_init(context: Connection, key: str = "") -> None:
    """Print the user-data that makes a plain VM ready for bootstrap."""
    preparing.main(key)


@task(name="status")
def lock_status(context: Connection) -> None:
    """Say who holds the deploy lock."""
    memory.lock_status()


@task(name="release", help={"yes": "don't ask"})
def lock_release(context: Connection, yes: bool = False) -> None:
    """Take the deploy lock from its holder, after asking."""
    memory.lock_release(yes)


@task(name="up", help={"machines": "how many"})
def lab_up(context: Connection, machines: str = "1") -> None:
    """Boot test machines that stay until lab.down."""
    lab.run("up", "--machines", machines)


@task(name="ssh", help={"name": "the machine", "user": "deploy or root",
                        "command": "what to run; better typed after --"})
def lab_ssh(context: Connection, name: str = "machine1", user: str = "deploy",
            command: str = "") -> None:
    """Log in to a test machine, or run a command on it after --."""
    lab.run("ssh", "--user", user, name, *([command] if command else []))


@task(name="down")
def lab_down(context: Connection) -> None:
    """End the test machines and remove all traces of them."""
    lab.run("down")


namespace = Collection(
    bootstrap, build, plan, deploy, rollback, releases, status, logs, execute, ssh, scale, destroy,
    cloud_init,
    Collection("node", node_drain, node_activate, node_remove),
    Collection("lock", lock_status, lock_release),
    Collection("lab", lab_up, lab_ssh, lab_down),
    Collection("test", test_all, test_style, test_unit, test_service, test_lab, test_vm))
