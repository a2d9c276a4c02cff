"""From plain machines to a proven release: what the fabfile calls.

Each room answers one question. A room imports only from those below it; setup.cfg holds the
contract, and the style tests check it.

    commands    What does each ./fab task do?
    console     How are people told, and asked? Only the commands know it.
    release     How does a checkout become a proven release, or leave the one before it running?
    bootstrap   How do plain machines become one Swarm that is ready for a deploy?
    images      What do services run, under which version, and where is it kept?
    state       What does the Swarm remember: the lock, releases, failed changes, the schema?
    swarm       Which nodes, services and tasks does the Swarm have, and in what state?
    engine      How is one Docker Engine asked, and what does it answer?
    machines    How is one machine reached, what is it, and what does it have?
    inventory   What did the operator choose?
    progress    What do the rooms report to whoever shows it?
    errors      How does a command end?
    waiting     How is something waited for? It stands beside errors.
"""
