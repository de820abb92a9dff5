"""Makes a virtual environment with one version of Synapse in it, unless it is there already.

Arguments: the directory, the version. Says on standard output what it is doing, one `step<TAB>detail` per line. Ends with
0, or with one of the codes below after the reason on standard error.

The lock is the kernel's (flock), so a killed installer leaves none behind. The marker is written last: an environment
without one was interrupted, and is made afresh.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys

PYTHON_TOO_OLD, NO_VENV, NO_PACKAGE, NO_DIRECTORY = 10, 11, 12, 13


def say(step, detail=""):
    print(f"{step}\t{detail}", flush=True)


def give_up(code, reason):
    print(reason.strip(), file=sys.stderr, flush=True)
    sys.exit(code)


def lock(path):
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting")
        fcntl.flock(handle, fcntl.LOCK_EX)


def is_complete(marker, python, version):
    try:
        with open(marker, encoding="utf8") as file:
            return json.load(file)["version"] == version and os.access(python, os.X_OK)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def create(venv):
    shutil.rmtree(venv, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", venv], capture_output=True, text=True)
    if made.returncode != 0:
        give_up(NO_VENV, made.stdout + made.stderr)


def install(python, version):
    command = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    command += ["--prefer-binary", f"matrix-synapse=={version}"]
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in pip.stdout:
        lines = [*lines[-14:], line]
        say("installing", line.strip()[:100])
    if pip.wait() != 0:
        give_up(NO_PACKAGE, "".join(lines))


def main(directory, version):
    if sys.version_info < (3, 10):
        give_up(PYTHON_TOO_OLD, ".".join(map(str, sys.version_info[:3])))
    venv, marker = os.path.join(directory, "venv"), os.path.join(directory, "installed.json")
    python = os.path.join(venv, "bin", "python")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        lock(os.path.join(directory, "lock"))
    except OSError as problem:
        give_up(NO_DIRECTORY, str(problem))
    if is_complete(marker, python, version):
        return
    if os.path.exists(marker):
        os.remove(marker)
    say("creating", directory)
    create(venv)
    say("installing", f"matrix-synapse {version}")
    install(python, version)
    with open(marker + ".new", "w", encoding="utf8") as file:
        json.dump({"version": version}, file)
    os.replace(marker + ".new", marker)


main(sys.argv[1], sys.argv[2])
