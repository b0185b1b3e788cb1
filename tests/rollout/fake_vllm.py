"""What `vllm serve` is to the program that starts it, in a second: see `flaky`.

    python fake_vllm.py --port=PORT [--started=FILE]

A prompt that begins with the token DEADLY ends it, a moment later. Where FILE is there it takes a
minute to start; else it makes one.
"""

import argparse
import os
import pathlib
import threading
import time

from flaky import serve

DEADLY = 7


def die() -> None:
    time.sleep(0.2)  # The others are in flight by then.
    os._exit(1)


def doomed(text: str) -> None:
    if text.split()[0] == str(DEADLY):
        threading.Thread(target=die).start()
        time.sleep(60)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--started", type=pathlib.Path)
    arguments, _ = parser.parse_known_args()
    if arguments.started:
        if arguments.started.exists():
            time.sleep(60)
        arguments.started.touch()
    with serve(doomed=doomed, delay=0.1, port=arguments.port):
        time.sleep(600)


if __name__ == "__main__":
    main()
