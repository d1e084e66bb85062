"""The parts of every line of sound in real time: a clock, a playout buffer, a guarded listener."""
