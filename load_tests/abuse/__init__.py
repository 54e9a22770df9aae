"""What one tenant can do to the others: abuses, and what a victim sees beside each."""
