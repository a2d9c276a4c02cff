"""The tools that run the tests: rings, their groups and the lab's command, with tests."""
