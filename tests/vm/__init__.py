"""Test the main job on a virtual machine with its own Debian kernel."""
