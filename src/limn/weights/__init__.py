"""Weight files: read safely, recognise, convert, fetch, save."""
