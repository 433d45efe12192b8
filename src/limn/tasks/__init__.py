"""One file per verb: what a person asks for, in terms of the floors below."""
