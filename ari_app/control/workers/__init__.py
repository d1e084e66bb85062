"""Several workers behind one front: what they tell each other, and how places are given out.

`messages` has the words, `roster` what the front knows, `hub` its end of the lines, `membership` a
worker's. `merged` adds the metrics of all.
"""
