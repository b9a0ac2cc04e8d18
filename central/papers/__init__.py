"""Papers for people who were not there: what they show is read out of signed records alone."""
