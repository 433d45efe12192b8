"""What networks minimise; feature networks are passed in."""
