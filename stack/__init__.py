"""What the fabfile calls: from a plain machine to a proven release."""
