"""Workers for test_run that die or refuse, named as `run_killed:function`."""

import json
import os
import signal

import tiny

from badnets.core.errors import RefusedError


def perform(payload):
    """Kills its own process at the twin of seed 1."""
    trial = json.loads(payload)["trial"]
    if (trial["seed"], trial["attack"]) == (1, None):
        os.kill(os.getpid(), signal.SIGKILL)
    return tiny.perform(payload)


def refuse(payload):
    raise RefusedError("E-TEST", "expected nothing, got a job.", hint="Send none.")
