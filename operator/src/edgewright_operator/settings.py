"""What the operator is told from outside: environment variables with the prefix EDGEWRIGHT_OPERATOR_, read once."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All settings of one operator process."""

    model_config = SettingsConfigDict(
        env_prefix="EDGEWRIGHT_OPERATOR_", frozen=True, use_attribute_docstrings=True, extra="ignore"
    )

    kubeconfig: Path | None = None
    """Kubeconfig; none inside a pod."""
    mlflow_url: str
    """Base URL of the MLflow server."""
    mlflow_user: str = ""
    """User name at MLflow, for basic authentication."""
    mlflow_password_file: Path | None = None
    """File of that user's password; read anew for each request."""
    mlflow_token_file: Path | None = None
    """File of a bearer token for MLflow, instead of user and password."""
    gateway_url: str
    """Base URL of the model gateway."""
    gateway_ca: Path | None = None
    """PEM file of the gateway's certificate authority; none: the system's."""
    gateway_token_file: Path
    """File of the token with the audience edgewright-gateway; read anew for each call."""
    poll_seconds: float = Field(default=30.0, gt=0)
    """How often the source of each CompressedModel is asked (± 20 %)."""
    interval: float = Field(default=2.0, gt=0)
    """How often each CompressedModel is decided at least; a change of what is watched decides at once."""
    resync_seconds: float = Field(default=600.0, gt=0)
    """How often everything is listed anew, whatever the watches said (± 20 %)."""
    writes: int = Field(default=16, ge=1, le=64)
    """How many writes to the API server may be under way at once."""
    stale_seconds: float = Field(default=900.0, gt=0)
    """Age of a heartbeat after which a node counts as offline."""
    single_tenant: bool = False
    """Whether a namespace without the node-selector annotation may select any node."""
    permit_key_file: Path = Path("/var/run/edgewright/permit/permit.key")
    """PEM file of the key that signs permits; without it nodes go back to their own last known good only."""
    prometheus_url: str | None = None
    """Base URL of the Prometheus that spec.rollout.gates.prometheus is asked of."""
    lease_seconds: int = Field(default=15, ge=1)
    """Life of the election Lease."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics; 0.0.0.0 in a pod."""
    metrics_port: int = Field(default=8080, ge=0, le=65_535)
    """Port of /metrics."""
