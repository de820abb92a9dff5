"""Runs Synapse with the given arguments until it is told to stop, or until whoever started it is gone.

Standard input is a pipe from the parent and never carries anything: its end means that the parent has died, even by
SIGKILL. Both outputs go to the file named by the first argument, so that nobody has to read a pipe for Synapse to go on.
"""

import os
import runpy
import signal
import sys
import threading
import time


def follow_parent():
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os.kill(os.getpid(), signal.SIGKILL)


output = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.dup2(output, 1)
os.dup2(output, 2)
threading.Thread(target=follow_parent, daemon=True).start()
sys.argv = ["synapse", *sys.argv[2:]]
runpy.run_module("synapse.app.homeserver", run_name="__main__", alter_sys=True)
