"""The agent's server as the supervisor starts it, with its doors."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from serving_peers.servers import Unavailable, end, start

from edgewright_local.ports import free_ports


class Agent:
    """A server process of the agent on a socket that this process owns."""

    def __init__(self, folder: Path, *, core: int | None = 0, grpc: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self.listening.getsockname()[1])
        self.control, self.frames = folder / "c.sock", folder / "f.sock"
        fd = self.listening.fileno()
        command = [sys.executable, "-m", "edgewright_agent.serving", "--fd", str(fd), "--control", str(self.control)]
        command += ["--frames", str(self.frames)]
        self.grpc = f"127.0.0.1:{free_ports(1)[0]}" if grpc else None
        variables = {"EDGEWRIGHT_AGENT_GRPC_ADDRESS": self.grpc} if self.grpc else {}
        self.process: subprocess.Popen[bytes] = start(command, folder, variables, core=core, pass_fds=[fd])
        deadline = time.monotonic() + 30
        while not (self.control.exists() and self.frames.exists()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                words = (folder / "output.log").read_text().strip()
                raise Unavailable(f"the agent's server did not start: {words[-300:]}")
            time.sleep(0.01)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One line to the control socket, one back.

        Raises:
            Unavailable: the server refused.
        """
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rwb") as file:
            client.connect(str(self.control))
            file.write(json.dumps(request).encode() + b"\n")
            file.flush()
            answer: dict[str, Any] = json.loads(file.readline())
        if not answer.get("ok"):
            raise Unavailable(f"{request['op']}: {answer.get('error')}")
        return answer

    def go_live(self, load: dict[str, Any]) -> None:
        """Load and promote."""
        self.ask(load)
        self.ask({"op": "promote", "model": load["model"], "manifest": load["manifest"]})

    def close(self) -> None:
        """End it."""
        end(self.process)
        self.listening.close()
