"""What does the Swarm remember: the lock, releases, failed changes and the schema?"""
