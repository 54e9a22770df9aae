"""What ``weir bench features`` is made of."""
