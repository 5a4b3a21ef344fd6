"""An HTTP server that plays back a list of answers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


def matrix(*series):
    """The answer to a range query; each series is (labels, {time: text})."""
    result = [
        {"metric": labels, "values": [[moment, text] for moment, text in points.items()]}
        for labels, points in series
    ]
    return 200, {"status": "success", "data": {"resultType": "matrix", "result": result}}


class Script:
    """An HTTP server that gives the answers of a list in turn, the last one for ever.

    Attributes:
        answers: those still to be given, as (status, JSON or text[, headers]); status None: no answer at all.
        seen: (method, path, headers, body) of every request.
    """

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                script.seen.append(
                    (
                        self.command,
                        self.path,
                        {name.title(): value for name, value in self.headers.items()},
                        body,
                    )
                )
                status, document, *headers = (
                    script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                )
                if status is None:  # the connection breaks
                    self.close_connection = True
                    return
                raw = document.encode() if isinstance(document, str) else json.dumps(document).encode()
                self.send_response(status)
                kind = "text/html" if isinstance(document, str) else "application/json"
                for name, value in {
                    "Content-Type": kind,
                    "Content-Length": str(len(raw)),
                    **(headers[0] if headers else {}),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PATCH = answer

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def forms(self):
        return [{name: values[0] for name, values in parse_qs(body).items()} for _, _, _, body in self.seen]
