"""Try the main job on a virtual machine that has a Debian kernel of its own."""
