from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from edgewright_agent.settings import AgentSettings
from edgewright_agent.starting import CONTROL_SOCKET

REST = {"node": "n", "api_url": "http://x", "gateway_url": "http://x"}
FILES = {name: Path("f") for name in ("api_token_file", "gateway_token_file", "root_key_file")}


@pytest.mark.parametrize("path", ["/" + 93 * "a", "/" + 46 * "ä"])
def test_a_folder_whose_socket_no_kernel_would_take_is_refused(path: str, tmp_path: Path) -> None:
    longest = "/" + 93 * "a"
    assert len(f"{longest}/{CONTROL_SOCKET}".encode()) == 107
    AgentSettings(state_dir=Path(path), **REST, **FILES)
    with pytest.raises(ValidationError, match="at most 94 bytes, because a Unix socket lies in it: /"):
        AgentSettings(state_dir=Path(path + "ä"), **REST, **FILES)
