"""One loop for every system: phases, data, resume."""
