"""A local OpenAI-compatible server that answers what it is asked, when it is in the mood."""

import collections
import contextlib
import http.server
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

FAILURES = (
    *("429", "500", "hang", "reset"),
    *("truncated", "nested", "encoded", "malformed", "choices", "empty", "surrogate"),
    *("abort", "endless"),
)


class Flaky(http.server.ThreadingHTTPServer):
    """The server. `asked` counts the attempts for each prompt, `answered` the good answers."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        failing: float = 0.0,
        kinds=FAILURES,
        doomed=lambda text: None,
        delay=0.0,
        port=0,
        reply="{text}/{index}".format,
        habit=lambda answer, text: answer,
    ):
        super().__init__(("127.0.0.1", port), _Handler)
        self.failing, self.kinds, self.doomed, self.delay = failing, kinds, doomed, delay
        self.delays = {}  # Of single prompts, in place of `delay`.
        self.reply = reply
        self.habit = habit  # Changes an answer, as other servers spell it.
        self.random = random.Random(0)
        self.lock = threading.Lock()
        self.asked = collections.Counter()
        self.answered = collections.Counter()
        self.failures = collections.Counter()
        self.bodies = []
        self.running = self.most_running = 0
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the context."""


@contextlib.contextmanager
def serve(*args, **settings) -> Iterator[Flaky]:
    with Flaky(*args, **settings) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._send(200, json.dumps({"data": []}))

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = "messages" in body
        text = body["messages"][-1]["content"] if chat else body["prompt"]
        text = text if isinstance(text, str) else " ".join(map(str, text))  # A prompt in tokens.
        with server.lock:
            server.asked[text] += 1
            server.bodies.append((self.path, self.headers.get("Authorization"), body))
            server.running += 1
            server.most_running = max(server.most_running, server.running)
            failure = server.doomed(text)
            if failure is None and server.random.random() < server.failing:
                failure = server.random.choice(server.kinds)
            server.failures[failure] += 1
        try:
            time.sleep(server.delays.get(text, server.delay))
            self._answer(body, chat, text, failure)
        finally:
            with server.lock:
                server.running -= 1

    def _answer(self, body, chat, text, failure):
        if failure in ("429", "500", "400", "401", "402", "403", "404"):
            return self._send(int(failure), '{"error": "not now"}', {"Retry-After": "0.05"})
        if failure == "hang":
            self.server.stopping.wait(60)
            return None
        if failure == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True  # Else the handler waits for another request on it.
            return None
        count = body["n"] + (failure == "choices")
        choices = []
        for index in range(count):
            said = self.server.reply(text=text, index=index)
            if failure == "surrogate":
                said = "\ud800"
            if failure in ("empty", "cut") or (failure == "first" and index == 0):
                said = ""
            said = {"message": {"role": "assistant", "content": said}} if chat else {"text": said}
            if body.get("return_token_ids"):
                said["token_ids"] = [] if failure == "empty" else body["prompt"]
            if "logprobs" in body:
                said["logprobs"] = {"token_logprobs": [-1e999 if failure == "infinite" else -0.5]}
            reason = {"abort": "abort", "cut": "length"}.get(failure, "stop")
            choices.append({"index": index, **said, "finish_reason": reason})
        tokens = 1e999 if failure == "endless" else 5 * count  # JSON's 1e999 is no int.
        usage = {"prompt_tokens": 3, "completion_tokens": tokens}
        answer = json.dumps(self.server.habit({"choices": choices[::-1], "usage": usage}, text))
        if failure == "malformed":
            answer = json.dumps({"choices": [None] * body["n"]})
        if failure == "nested":
            answer = "[" * 100_000
        if failure == "truncated":
            answer = answer[: len(answer) // 2]
        elif failure is None:
            with self.server.lock:
                self.server.answered[text] += 1
        return self._send(200, answer, {"Content-Encoding": "gzip"} if failure == "encoded" else ())

    def _send(self, status, text, headers=()):
        data = text.encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
