"""Translation: pictures or label maps of one kind become pictures of another."""
