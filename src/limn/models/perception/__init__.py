"""Networks that look at faces: detectors, landmarks, identity, features."""
