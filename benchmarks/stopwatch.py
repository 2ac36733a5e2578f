"""``python -I -S stopwatch.py LIMIT LOOK OUTPUT COMMAND…``: run a command as a whole process and measure it.

Prints ``EXIT WALL_SECONDS CPU_SECONDS PEAK_KIB ANONYMOUS_KIB``; what the command says goes to OUTPUT.
CPU and memory are the command's own and of all it waited for (wait4). The last figure is the most that was
its own, without the pages of files that it maps, at a look each LOOK seconds (0: no look). A process of
its own, because Linux hands the peak memory of the one who starts a process on to it: this one's is 10 MiB,
less than any client takes.
"""

import os
import signal
import sys
import time


def main(limit: str, look: str, output: str, *command: str) -> None:
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    began = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setpgroup=0)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(pid, signal.SIGKILL))
    signal.alarm(int(limit))
    anonymous = most_anonymous(pid, float(look)) if float(look) else 0
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - began
    code = os.waitstatus_to_exitcode(status)
    print(code, f"{wall:.6f}", f"{usage.ru_utime + usage.ru_stime:.6f}", usage.ru_maxrss, anonymous)


def most_anonymous(pid: int, look_seconds: float) -> int:
    """Until the process has ended, which it is left to the caller to collect."""
    most = 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        with open(f"/proc/{pid}/status") as status:
            sizes = [line.split()[1] for line in status if line.startswith("RssAnon:")]
        most = max([most, *map(int, sizes)])
        time.sleep(look_seconds)
    return most


if __name__ == "__main__":
    main(*sys.argv[1:])
