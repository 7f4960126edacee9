"""`edgewright-agent`: reads the command line. `run` begins the first server before it imports what the agent needs."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from edgewright_agent import starting
from edgewright_agent.starting import PREFIX

_EXAMPLES = f"""
settings come from the environment, with the prefix {PREFIX}:
  {PREFIX}NODE=plant-a-1  {PREFIX}STATE_DIR=/var/lib/edgewright
  {PREFIX}API_URL=https://10.0.0.1:6443
  {PREFIX}API_CA=/etc/edgewright/ca.pem  {PREFIX}API_TOKEN_FILE=/run/edgewright/api
  {PREFIX}GATEWAY_URL=https://gateway:8443  {PREFIX}GATEWAY_TOKEN_FILE=/run/edgewright/gateway
  {PREFIX}ROOT_KEY_FILE=/etc/edgewright/root.pub

examples:
  edgewright-agent run          follow the EdgeNode of this node, serve on 127.0.0.1:8080
  edgewright-agent hardware     print what this node is (class, flags, cores) as JSON and end
  edgewright-agent install --systemd --dry-run --node plant-a-1 \\
      --api-url https://10.0.0.1:6443 --gateway-url https://gateway:8443
                                print the unit, the user and the settings that would be written
"""

_INSTALLING = """
examples:
  edgewright-agent install --systemd --join plant-a-1.join.json
                                with the file that `edgewright nodes join plant-a-1` wrote: unit, user, settings, tokens
  edgewright-agent install --systemd --dry-run --node plant-a-1 \\
      --api-url https://10.0.0.1:6443 --gateway-url https://gateway:8443
                                print what would be written and write nothing
"""


def main() -> int:
    """Entry point of `edgewright-agent`."""
    parser = argparse.ArgumentParser(
        prog="edgewright-agent",
        description="Verifies, tests, swaps and serves a release on an edge node.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "run",
        help="follow the EdgeNode of this node and serve",
        epilog="Example: edgewright-agent run (settings are environment variables: edgewright-agent --help)",
    )
    commands.add_parser("hardware", help="print what this node is", epilog="Example: edgewright-agent hardware")
    service = commands.add_parser(
        "install",
        help="make this a service of the machine",
        epilog=_INSTALLING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_arguments(service)
    arguments = parser.parse_args()
    if arguments.command == "run":
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        return asyncio.run(_run())
    if arguments.command == "hardware":
        from edgewright_agent import hardware

        print(hardware.measured(None).model_dump_json(by_alias=True, indent=2))
        return 0
    from edgewright_agent import install

    return install.run(arguments)


async def _run() -> int:
    begun = await starting.ahead(os.environ)
    from edgewright_agent import running  # takes half a second, in which the server does the same

    return await running.run(begun)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `install` takes."""
    parser.add_argument("--systemd", action="store_true", required=True, help="the one kind of service there is")
    parser.add_argument("--root", type=Path, help="write below this folder and start nothing")
    parser.add_argument("--dry-run", action="store_true", help="print what would be written and write nothing")
    parser.add_argument("--join", type=Path, help="file that `edgewright nodes join NODE` wrote: all of what follows")
    parser.add_argument("--node", help="name of the node")
    parser.add_argument("--api-url", help="base URL of the API server")
    parser.add_argument("--gateway-url", help="base URL of the model gateway")
    parser.add_argument("--api-ca", help="PEM file of the API server's authority")
    parser.add_argument("--gateway-ca", help="PEM file of the gateway's authority")
    parser.add_argument("--host", help="address to serve on; 127.0.0.1 without it")
    parser.add_argument("--port", help="port to serve on; 8080 without it")


if __name__ == "__main__":
    sys.exit(main())
