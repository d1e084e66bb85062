"""What may be spent on agents in a day, and what was: limits, counts, and the guard over both."""
