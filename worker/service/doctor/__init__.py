"""The doctor: tries everything that the processes of a fleet need, and names a remedy for each fault."""
