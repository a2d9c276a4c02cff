"""Make the machines ready to deploy on."""

from stack import console
from stack.bootstrap.converge import converge
from stack.commands.one_line import in_one_line
from stack.inventory.settings import Settings, inventory_path
from stack.machines.sudo import require_root
from stack.swarm import fleet

LOCK = "/run/tally-bootstrap.lock"
# Machines that were made a moment ago may still boot.
BOOTING = 15.0


@in_one_line
def bootstrap(accept_new_host_keys: bool = False, renew_base: bool = False) -> None:
    """Change whatever differs from what a deploy needs, and say what that was."""
    if inventory_path() is None:
        require_root("./fab bootstrap")
    console.heading("Bootstrap")
    machines = fleet.reach(accept=accept_new_host_keys, patience=BOOTING)
    settings = Settings.load(machines.inventory)
    with machines.managers[0].machine.exclusively(LOCK):
        converge(machines, settings, renew_base)
