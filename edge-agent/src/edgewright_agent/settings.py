"""What the agent is told from outside: environment variables with the prefix EDGEWRIGHT_AGENT_, read once at start."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edgewright_agent.starting import CONTROL_SOCKET, DEFAULT_HOST, DEFAULT_PORT, PREFIX

_LONGEST_SOCKET_PATH: Final = 107
"""Bytes that the kernel takes as the path of a Unix socket (unix(7))."""


class AgentSettings(BaseModel):
    """Settings of the supervisor. The server process inherits the environment, so its source settings pass through."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    node: str = Field(min_length=1, max_length=253)
    """Name of the node; the EdgeNode and the Lease are named alike."""
    state_dir: Path
    """Folder for releases and state; it must survive a reboot."""
    api_url: str
    """Base URL of the API server."""
    api_ca: Path | None = None
    """PEM file of the API server's certificate authority; none: the system's."""
    api_token_file: Path
    """Token for the API server; read again for every request, because it is renewed."""
    service_account: str | None = None
    """ServiceAccount of this node, whose tokens the agent renews itself; none in a pod, where the kubelet does."""
    gateway_url: str
    """Base URL of the model gateway."""
    gateway_ca: Path | None = None
    """PEM file of the gateway's certificate authority; none: the system's."""
    gateway_token_file: Path
    """Token of audience edgewright-gateway; read again for every request."""
    root_key_file: Path
    """PEM file of the offline root key's public half."""
    host: str = DEFAULT_HOST
    """Address that the server listens on."""
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    """Port that the server listens on; 0 takes a free one."""
    hardware_class: str | None = Field(default=None, max_length=63)
    """Overrides the computed hardware class, as the label edgewright.dev/hardware-class does."""
    heartbeat_seconds: float = Field(default=300.0, gt=0)
    """The Lease is renewed about this often (± 20 %)."""
    figures_seconds: float = Field(default=60.0, gt=0)
    """During a trial the figures go into the status this often."""
    trial_seconds: float = Field(default=3600.0, ge=0)
    """How long a model that went live may still be reverted by the node itself."""
    shadow_seconds: float = Field(default=0.0, ge=0)
    """How long a model runs beside the old one before it goes live."""
    min_agreement: float = Field(default=0.0, ge=0, le=1)
    """A model that agrees less with the former one over the node's own readings never goes live; 0 leaves it to the
    CompressedModel's gates."""
    min_replayed: int = Field(default=20, ge=1)
    """Fewer windows of own readings than this say nothing about agreement."""
    max_error_rate: float = Field(default=0.1, ge=0, le=1)
    """On trial a model is reverted when more than this share of its windows fails, five windows at least."""
    max_growth_bytes: int = Field(default=128 * 1024**2, gt=0)
    """On trial a model is reverted when the server has grown by more than this since it went live."""
    max_server_bytes: int = Field(default=320 * 1024**2, gt=0)
    """A server that has grown beyond this hands over to a new one: ONNX Runtime gives no memory back."""
    download_seconds: float = Field(default=900.0, gt=0)
    """Deadline of one attempt to fetch one file; the next attempt goes on where it ended."""
    retry_seconds: float = Field(default=30.0, gt=0)
    """Longest pause between two attempts to fetch."""
    self_test_seconds: float = Field(default=60.0, gt=0)
    """Deadline of the self-test process."""
    self_test_bytes: int = Field(default=2 * 1024**3, gt=0)
    """Address space that the self-test process may take."""
    ping_seconds: float = Field(default=2.0, gt=0)
    """The server is asked for a sign of life this often, eight times as often while a model is on trial."""
    trial_hang_seconds: float = Field(default=1.5, gt=0)
    """The same while a model is on trial, when it takes the blame; time spent waiting for a processor is left out."""
    hang_seconds: float = Field(default=10.0, gt=0)
    """A server that does not answer for so long is replaced."""
    start_seconds: float = Field(default=60.0, gt=0)
    """A server that is not ready after so long is replaced."""
    min_free_bytes: int = Field(default=16 * 1024**2, ge=0)
    """Space on disk that stays free beside a download."""

    @field_validator("state_dir")
    @classmethod
    def _holds_a_socket(cls, folder: Path) -> Path:
        most = _LONGEST_SOCKET_PATH - len(CONTROL_SOCKET) - 1
        if len(os.fsencode(folder)) > most:
            raise ValueError(f"the path may have at most {most} bytes, because a Unix socket lies in it: {folder}")
        return folder


def from_environment(environment: Mapping[str, str]) -> AgentSettings:
    """Read the settings.

    Raises:
        pydantic.ValidationError: a variable is missing, or its value does not fit.
    """
    given = {key.removeprefix(PREFIX).lower(): value for key, value in environment.items() if key.startswith(PREFIX)}
    return AgentSettings.model_validate(given)
