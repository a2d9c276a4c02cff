"""Tally's tasks. Type ./fab --list, or ./fab --help TASK."""

from fabric import task
from invoke.collection import Collection
from invoke.context import Context

from stack import commands
from tests.tooling import lab, lock_files, rings


@task(help={"accept-new-host-keys": "trust new machines without asking",
            "renew-base": "build the base image again, with today's security updates"})
def bootstrap(context: Context, accept_new_host_keys: bool = False,
              renew_base: bool = False) -> None:
    """Make the machines ready: Docker, one Swarm, secrets, images."""
    commands.bootstrap.bootstrap(accept_new_host_keys, renew_base)


@task
def build(context: Context) -> None:
    """Build this checkout's images without deploying them."""
    commands.deploy.build_images()


@task(help={"sql": "also print the SQL of the migrations",
            "exit-code": "exit 2 if a deploy would change anything"})
def plan(context: Context, sql: bool = False, exit_code: bool = False) -> None:
    """Show what a deploy would do, without doing it."""
    commands.plan.plan(sql, exit_code)


@task(help={"probe-budget": "failed requests to tolerate during the update (default: unlimited)",
            "json": "print a report for programs to stdout, and all else to stderr"})
def deploy(context: Context, probe_budget: str = "", json: bool = False) -> None:
    """Build, migrate, roll out and verify; restore the previous release on failure."""
    commands.deploy.deploy(probe_budget, json)


@task(help={"to": "a proven version from ./fab releases (default: the previous release)",
            "json": "print a report for programs to stdout, and all else to stderr"})
def rollback(context: Context, to: str = "", json: bool = False) -> None:
    """Restore the previous release."""
    commands.rollback.rollback(to, json)


@task(help={"json": "print a report for programs to stdout, and all else to stderr"})
def status(context: Context, json: bool = False) -> None:
    """Show the release, its services and their tasks; exit 1 unless all is well."""
    commands.status.status(json)


@task(help={"service": "app, postgres, traefik or socket-proxy",
            "follow": "follow the log until Ctrl-C", "lines": "how many of the last lines to show"})
def logs(context: Context, service: str, follow: bool = False, lines: str = "100") -> None:
    """Show the log of all tasks of a service."""
    commands.logs.logs(service, follow, lines)


@task(name="exec", help={"service": "app, postgres, traefik or socket-proxy",
                         "command": "the command to run; better typed after --"})
def execute(context: Context, service: str, command: str = "sh") -> None:
    """Run a command in a service's container: ./fab exec app -- flask db current."""
    commands.shell.execute(service, command)


@task(help={"machine": "its host in the inventory",
            "command": "the command to run; better typed after --"})
def ssh(context: Context, machine: str, command: str = "") -> None:
    """Log in to a machine of the inventory, or run a command there after --."""
    commands.shell.ssh(machine, command)


@task(help={"service": "app=N"})
def scale(context: Context, service: str) -> None:
    """Run N tasks of the application, now and after each deploy: ./fab scale app=4."""
    commands.scale.scale(service)


@task(name="drain", help={"machine": "its host in the inventory, or the node's name or id",
                          "gap": "also stop tasks that cannot move, such as Postgres"})
def node_drain(context: Context, machine: str, gap: bool = False) -> None:
    """Move a node's tasks to other nodes, before a reboot or a repair."""
    commands.node.drain(machine, gap)


@task(name="activate", help={"machine": "its host in the inventory, or the node's name or id"})
def node_activate(context: Context, machine: str) -> None:
    """Return a drained node to service."""
    commands.node.activate(machine)


@task(name="remove", help={"machine": "its host in the inventory, or the node's name or id"})
def node_remove(context: Context, machine: str) -> None:
    """Move a node's tasks away, then remove it from the Swarm."""
    commands.node.remove(machine)


@task(help={"data": "remove the visits and the secrets as well", "yes": "don't ask"})
def destroy(context: Context, data: bool = False, yes: bool = False) -> None:
    """Remove the stack after a confirmation; its data stays unless you add --data."""
    commands.destroy.destroy(data, yes)


@task(name="all", default=True)
def test_all(context: Context) -> None:
    """Run every ring of tests, as CI does."""
    rings.run(*rings.EVERY)


@task(name="quick")
def test_quick(context: Context) -> None:
    """Run the style and unit tests, which need no machine and no service."""
    rings.run(*rings.QUICK)


@task(name="style")
def test_style(context: Context) -> None:
    """Check the sources, the YAML, the Dockerfiles and the shell scripts."""
    rings.run(rings.STYLE)


@task(name="unit")
def test_unit(context: Context) -> None:
    """Test pure functions, and the application on SQLite."""
    rings.run(rings.UNIT)


@task(name="service")
def test_service(context: Context) -> None:
    """Test with a real PostgreSQL, MariaDB and sshd."""
    rings.run(rings.SERVICE)


@task(name="lab")
def test_lab(context: Context) -> None:
    """Boot machines, then bootstrap, deploy and break things on them."""
    rings.run(rings.LAB)


@task(name="vm")
def test_vm(context: Context) -> None:
    """Bootstrap and deploy on a virtual machine with Debian's own kernel; takes long."""
    rings.run(rings.VM)


@task
def releases(context: Context) -> None:
    """List the last releases and failed changes, newest first."""
    commands.history.releases()


@task(help={"key": "your public key's file (default: a usual one in ~/.ssh)"})
def cloud_init(context: Context, key: str = "") -> None:
    """Print the user-data that makes a plain VM ready for bootstrap."""
    commands.cloud_init.cloud_init(key)


@task(name="status")
def lock_status(context: Context) -> None:
    """Show who holds the deploy lock."""
    commands.lock.status()


@task(name="release", help={"yes": "don't ask"})
def lock_release(context: Context, yes: bool = False) -> None:
    """Take the deploy lock from its holder, after a confirmation."""
    commands.lock.release(yes)


@task(help={"upgrade": "take the newest versions, not those that are locked"})
def requirements(context: Context, upgrade: bool = False) -> None:
    """Renew the lock files of Python packages from the .in files."""
    lock_files.renew(upgrade)


@task(name="up", help={"machines": "how many"})
def lab_up(context: Context, machines: str = "1") -> None:
    """Boot test machines that stay until lab.down."""
    lab.run("up", "--machines", machines)


@task(name="ssh", help={"name": "the machine", "user": "deploy or root",
                        "command": "the command to run; better typed after --"})
def lab_ssh(context: Context, name: str = "machine1", user: str = "deploy",
            command: str = "") -> None:
    """Log in to a test machine, or run a command there after --."""
    lab.run("ssh", "--user", user, name, *([command] if command else []))


@task(name="down")
def lab_down(context: Context) -> None:
    """Stop the test machines and remove everything of them."""
    lab.run("down")


namespace = Collection(
    bootstrap, build, plan, deploy, rollback, releases, status, logs, execute, ssh, scale, destroy,
    cloud_init, requirements,
    Collection("node", node_drain, node_activate, node_remove),
    Collection("lock", lock_status, lock_release),
    Collection("lab", lab_up, lab_ssh, lab_down),
    Collection("test", test_all, test_quick, test_style, test_unit, test_service, test_lab,
               test_vm))

program = commands.command_line.Program(namespace)

if __name__ == "__main__":
    program.run()
