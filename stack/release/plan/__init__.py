"""What would a deploy change?"""
