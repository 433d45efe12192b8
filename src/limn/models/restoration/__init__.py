"""Restoration: networks that undo what time, cameras and compression did to a picture, and those that enlarge it."""
