"""Several machines: who is the front of an Asterisk, how many calls there may be, who has which."""
