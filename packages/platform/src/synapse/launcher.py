"""Runs Synapse with the given arguments until it is told to stop, or until whoever started it is gone.

Standard input is a pipe from the parent and never carries anything: its end means that the parent has died, even by
SIGKILL. Then nobody else is left to wipe the directory of the server, which is the first argument. Both outputs go to a
file in it, so that nobody has to read a pipe for Synapse to go on.
"""

import os
import runpy
import shutil
import signal
import sys
import threading
import time


directory = sys.argv[1]
orphaned = threading.Event()


def follow_parent():
    while os.read(0, 4096):
        pass
    orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os.kill(os.getpid(), signal.SIGKILL)


output = os.open(os.path.join(directory, "output.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.dup2(output, 1)
os.dup2(output, 2)
threading.Thread(target=follow_parent, daemon=True).start()
sys.argv = ["synapse", *sys.argv[2:]]
try:
    runpy.run_module("synapse.app.homeserver", run_name="__main__", alter_sys=True)
finally:
    if orphaned.is_set():
        shutil.rmtree(directory, ignore_errors=True)
