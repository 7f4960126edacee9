"""What the gateway is told from outside: environment variables with the prefix EDGEWRIGHT_GATEWAY_, read once."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
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
    """Folder of verified files, their index and the newest trust.json; it may be lost at any time."""
    mlflow_url: str
    """Base URL of the MLflow server."""
    mlflow_user: str = ""
    """User name at MLflow, for basic authentication."""
    mlflow_password_file: Path | None = None
    """File of that user's password; read anew for each request."""
    mlflow_token_file: Path | None = None
    """File of a bearer token for MLflow, instead of user and password."""
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
    node_accounts: str = "system:serviceaccount:edgewright:*"
    """Whose node-bound tokens are believed: shell patterns of user names, separated by commas."""
    cache_bytes: int = Field(default=4 * 1024**3, ge=64 * 1024**2)
    """Bytes that the cache may grow to; then the releases that came in first go."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS needs both: TLS_CERTIFICATE_FILE and TLS_KEY_FILE")
        return self
