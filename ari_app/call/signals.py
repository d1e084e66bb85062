"""What goes into the call's machine and what comes out of it, under one name.

Events say what happened, effects say what is to be done. :class:`ari_app.call.session.CallSession`
turns one into the other by talking to Asterisk and the agent.
"""

from ari_app.call.effects import *  # noqa: F403
from ari_app.call.events import *  # noqa: F403
from ari_app.call.outcome import Outcome as Outcome
from ari_app.call.outcome import Status as Status
