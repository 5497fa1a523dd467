"""Files and inputs made at random, for the readers and the nodes of the pack: all faults come back as sentences."""
