"""One machine: how is it reached, what is it, and what does it have?"""
