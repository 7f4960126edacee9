"""`edgewright nodes join`: makes a machine's account and writes the one file that the agent installs itself from."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright_cli import nodes
from edgewright_cli.cluster import ClusterError, Kubeconfig, opened
from edgewright_cli.output import JsonFlag, out, print_json, sentences
from edgewright_contract import keys, names, node_account

TOKEN_SECONDS = 86_400

app = typer.Typer()


@app.callback(invoke_without_command=True)
def listing(context: typer.Context, kubeconfig: Kubeconfig = None, json_output: JsonFlag = False) -> None:
    """What each node runs and measures; `join` lets a machine outside a pod become a node.

    Example: edgewright nodes --json
    """
    if context.invoked_subcommand is None:
        nodes.nodes(kubeconfig, json_output)


@app.command("join")
def join(
    node: Annotated[str, typer.Argument(help="Name of the Node, which must be there.")],
    gateway: Annotated[str, typer.Option(help="Where that machine finds the gateway: https://HOST:PORT.")],
    gateway_ca: Annotated[Path, typer.Option(help="PEM file of the authority that signed the gateway's certificate.")],
    root_key: Annotated[Path, typer.Option(help="root.pub: the public half of the offline root key.")],
    api: Annotated[str | None, typer.Option(help="API server as that machine finds it; else the kubeconfig's.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write it; else NODE.join.json.")] = None,
    kubeconfig: Kubeconfig = None,
    json_output: JsonFlag = False,
) -> None:
    """Make the account of a node outside a pod, and the file for `edgewright-agent install --systemd --join FILE`.

    The tokens in it live for 24 hours; the agent renews them from then on. Joining again writes new ones.

    Example: edgewright nodes join plant-a-1 --gateway https://gw:8443 --gateway-ca ca.pem --root-key root.pub
    """
    target = output or Path(f"{node}.join.json")
    with sentences(ClusterError, ValueError, OSError), opened(kubeconfig) as cluster:
        trusted = {"gatewayCa": _pem(gateway_ca), "rootKey": _pem(root_key)}
        keys.load_public(trusted["rootKey"].encode())
        uid = cluster.node_uid(node)
        for document in node_account.documents(node):
            cluster.apply(document)
        account = node_account.account(node)
        server, authority = cluster.address()
        write_secret(
            target,
            {
                "node": node,
                "serviceAccount": account,
                "apiUrl": api or server,
                "apiCa": authority,
                "apiToken": cluster.bound_token(account, node, uid, None, TOKEN_SECONDS),
                "gatewayUrl": gateway,
                "gatewayToken": cluster.bound_token(account, node, uid, names.GATEWAY_AUDIENCE, TOKEN_SECONDS),
                **trusted,
            },
        )
    if json_output:
        print_json({"node": node, "serviceAccount": account, "file": str(target)})
        return
    out.print(f"{target} holds two tokens for {node}, good for 24 hours: carry it there over a trusted way, and then")
    out.print(f"  edgewright-agent install --systemd --join {target.name}")


def write_secret(target: Path, content: dict[str, Any]) -> None:
    """Write a file that only its owner reads, from its first byte on; one that is there is replaced.

    Raises:
        OSError: the folder or disk refuses.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump(content, stream, indent=1)
    unfinished.replace(target)


def _pem(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no PEM file: it holds other bytes than text") from None
