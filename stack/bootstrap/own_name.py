"""Let a machine know its own name: sudo looks it up for each command.

Without a line in /etc/hosts, sudo asks a name server and complains. If that doesn't answer, each
command waits for the resolver's time limit, which is 5 s (resolv.conf(5)).
"""

from stack.machines.machine import Machine

# Where cloud-init manages /etc/hosts, each boot makes it anew from its template. Both may lack
# the end of their last line.
ENSURE = """
set -eu
name=$(uname -n)
if getent hosts "$name" > /dev/null; then exit; fi
for file in /etc/hosts /etc/cloud/templates/hosts.*.tmpl; do
    if [ "$file" != /etc/hosts ]; then
        [ -e "$file" ] && grep -q manage_etc_hosts /etc/hosts || continue
    fi
    [ -z "$(tail -c 1 "$file")" ] || echo >> "$file"
    echo "127.0.1.1 $name" >> "$file"
done
echo "$name"
"""


def ensure(machine: Machine) -> str:
    """Add the name to /etc/hosts unless it resolves; return it if it was added, else ""."""
    return machine.must(["sh", "-c", ENSURE]).strip()
