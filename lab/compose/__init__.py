"""What runs in the containers of the lab: `docker compose up`, see docs/docker.md.

`setup` makes passwords and fills in the configuration of all the others, `caller` holds a call
after another, `card` shows the account for a person's softphone.
"""
