"""`edgewright keys`: make and list the keys that sign releases, permits and trust."""

from pathlib import Path
from typing import Annotated

import typer

from edgewright_cli.output import JsonFlag, out, print_json, sentences

app = typer.Typer(no_args_is_help=True, help="Make and list signing keys.")
Folder = Annotated[Path, typer.Argument(help="Folder of the keys (mode 0700; the private keys are mode 0600).")]


@app.command("new")
def new(
    folder: Folder, models: Annotated[str, typer.Option(help="Models that the release key may sign.")] = "*"
) -> None:
    """Make a root, a release and a permit key and a signed trust.json; existing keys are kept.

    Example: edgewright keys new keys --models 'nilm-*'
    """
    from edgewright_pipelines import signing_keys

    with sentences(ValueError, OSError):
        signing_keys.ensure(folder, registered_models=(models,))
    out.print(f"Keys are in {folder}. Keep root.key offline; nodes need root.pub only.")


@app.command("list")
def listing(folder: Folder, json_output: JsonFlag = False) -> None:
    """The keys of a folder by role and key id."""
    from edgewright_contract import keys

    with sentences(ValueError, OSError):
        found = {path.stem: keys.key_id(keys.load_public(path.read_bytes())) for path in sorted(folder.glob("*.pub"))}
        if not found:
            raise ValueError(f"{folder} holds no .pub file: run `edgewright keys new {folder}` first")
    if json_output:
        print_json({"keys": found})
    else:
        for role, identity in found.items():
            out.print(f"{role:10} {identity}")
