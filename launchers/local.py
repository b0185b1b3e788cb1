"""Runs a program as several processes on this machine, joined through `jax.distributed`.

    python -m launchers.local --processes=2 --cpu_devices=4 -- -m experiments.sft --flagfile=...

If one process fails, the others are ended; SIGTERM reaches all of them.
"""

import os
import signal
import socket
import subprocess
import sys
import time

from absl import app, flags

_PROCESSES = flags.DEFINE_integer("processes", 2, "How many processes.", lower_bound=1)
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices", 0, "Simulate so many CPU devices in each; 0: use what there is.", lower_bound=0
)


def main(argv: list[str]) -> None:
    """Runs the program."""
    if len(argv) < 2:
        sys.exit("error: nothing to run; give Python's arguments after --: -- -m experiments.sft")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [_start(argv[1:], number, port) for number in range(_PROCESSES.value)]

    def forward(number: int, _: object) -> None:
        for process in processes:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):
            time.sleep(5)  # The others may be ending for the same reason.
            for process in processes:
                process.kill()
        time.sleep(0.1)
    sys.exit(max((process.returncode for process in processes), key=abs))


def _start(arguments: list[str], number: int, port: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(_PROCESSES.value),
        "JAX_PROCESS_ID": str(number),
    }
    if _CPU_DEVICES.value:
        environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(_CPU_DEVICES.value)}
    return subprocess.Popen([sys.executable, *arguments], env=environment)


if __name__ == "__main__":
    app.run(main)
