"""What limn raises: one line that names the file or value, what was expected, and the fix."""


class LimnError(Exception):
    """Every error that a user can mend; the command line prints it in one line and exits with code 2."""


class InputError(LimnError):
    """A file or value given by the user cannot be used."""


class FaceError(LimnError):
    """A photograph holds no face, or not the face that was asked for."""


class WeightsError(LimnError):
    """A weight file cannot be read, recognised or loaded."""


class TrainingError(LimnError):
    """A training run cannot start or go on."""
