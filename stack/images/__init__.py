"""What do services run: how is it built, under which version, and where is it kept?"""
