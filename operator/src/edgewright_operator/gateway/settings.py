"""What the gateway is told from outside: environment variables with the prefix EDGEWRIGHT_GATEWAY_, read once."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All settings of one gateway process."""

    model_config = SettingsConfigDict(
        env_prefix="EDGEWRIGHT_GATEWAY_", frozen=True, use_attribute_docstrings=True, extra="ignore"
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8443, ge=0, le=65_535)
    """Port to listen on."""
    cache: Path
    """Folder of verified files; it may be lost at any time."""
    mlflow_url: str
    """Base URL of the MLflow server."""
    kubeconfig: Path | None = None
    """Kubeconfig; none inside a pod."""
    trust_file: Path
    """The signed trust.json."""
    root_key_file: Path
    """Public half of the root key."""
    tls_certificate_file: Path | None = None
    """PEM file of the certificate chain; none: plain HTTP, for loopback only."""
    tls_key_file: Path | None = None
    """PEM file of the certificate's key."""
    operator_account: str = "system:serviceaccount:edgewright:operator"
    """Who may ask for releases."""
