"""What every line of sound in real time needs: a clock, a playout buffer, a guarded listener."""
