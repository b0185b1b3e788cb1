"""What each player is shown, and the parsers of what comes back."""
