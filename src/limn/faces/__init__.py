"""One Face record: detect, landmarks, align, measure, paste back."""
