"""One Swarm: which nodes, services and tasks does it have, and in what state?"""
