"""How does a checkout become a proven release, or leave the previous release running?"""
