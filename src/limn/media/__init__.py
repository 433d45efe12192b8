"""Images and video in and out: colour, orientation, metadata, marks of origin."""
