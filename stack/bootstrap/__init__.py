"""How do plain machines become one Swarm that is ready for a deploy?"""
