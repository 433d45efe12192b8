"""Swapping: systems that give a face the identity of another and leave it its pose, expression and light."""
