"""Write a machine's own files: cloud-init's seed, the lab's key and a few facts of the host."""

from __future__ import annotations

import json
import shutil
from ipaddress import IPv4Interface
from pathlib import Path

# systemd-nspawn mounts cgroups read-only into a machine, where runc has to make some. It is a
# unit, so that it also runs after each reboot.
CGROUPS_UNIT = """\
[Unit]
Description=Make cgroups writable for containers
DefaultDependencies=no
Before=basic.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'findmnt --list --noheadings --output TARGET --types cgroup,cgroup2 \
| xargs --max-args=1 mount -o remount,bind,rw'
"""


# As in Debian's cloud images: sudo complains about a hostname that doesn't resolve.
CLOUD_CONFIG = json.dumps({"manage_etc_hosts": True})


def default_user_data(public_key: str) -> str:
    """Return user-data that makes `deploy`, with the lab's key and sudo without a password."""
    return "#cloud-config\n" + json.dumps({
        "users": [{
            "name": "deploy",
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": True,
            "ssh_authorized_keys": [public_key],
        }],
    }, indent=2)


def network_config(address: IPv4Interface, gateway: str) -> str:
    """Return a static network configuration: without it, cloud-init tries DHCP for two minutes."""
    return json.dumps({
        "version": 2,
        "ethernets": {
            "eth0": {
                "dhcp4": False,
                "addresses": [str(address)],
                "routes": [{"to": "default", "via": gateway}],
            },
        },
    })


def write_layer(layer: Path, name: str, user_data: str, network: str, public_key: str) -> None:
    """Write the machine's own layer, which is mounted over the Debian root."""
    seed = {
        "meta-data": json.dumps({"instance-id": f"lab-{name}", "local-hostname": name}),
        "user-data": user_data,
        "network-config": network,
    }
    for file, text in seed.items():
        _write(layer / "var/lib/cloud/seed/nocloud" / file, text)
    _write(layer / "root/.ssh/authorized_keys", public_key + "\n", mode=0o600)
    _write(layer / "etc/cloud/cloud.cfg.d/01_debian_cloud.cfg", CLOUD_CONFIG)
    for directory in ("root", "root/.ssh"):
        (layer / directory).chmod(0o700)
    _write_cgroups_unit(layer / "etc/systemd/system")
    _copy_host_facts(layer / "etc")


def _write_cgroups_unit(units: Path) -> None:
    _write(units / "lab-cgroups.service", CGROUPS_UNIT)
    wants = units / "sysinit.target.wants"
    wants.mkdir()
    (wants / "lab-cgroups.service").symlink_to("../lab-cgroups.service")


def _copy_host_facts(etc: Path) -> None:
    """Copy the host's name servers and CAs, which are needed behind a proxy that inspects TLS."""
    # With systemd-resolved, /etc/resolv.conf names a loopback address of the host.
    upstream = Path("/run/systemd/resolve/resolv.conf")
    resolv = upstream if upstream.exists() else Path("/etc/resolv.conf")
    _write(etc / "resolv.conf", resolv.read_text(encoding="utf-8"))
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    (etc / "ssl/certs").mkdir(parents=True)
    shutil.copyfile(bundle, etc / "ssl/certs" / bundle.name)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
