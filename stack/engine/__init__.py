"""One Docker Engine: how is it asked, and what does it answer?"""
