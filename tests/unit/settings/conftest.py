"""All required settings, in variables or in files."""

from pathlib import Path

import pytest
import trustme

from tests.unit.settings.environment import COMPLETE, Environment, put


@pytest.fixture(name="environment")
def _environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """All required settings are variables."""
    put(monkeypatch, COMPLETE)
    return monkeypatch


@pytest.fixture(name="directory")
def _directory(environment: Environment, tmp_path: Path) -> Path:
    """All required settings are files, as Docker mounts secrets. WORKER_SECRETS_DIR is the only variable."""
    for name, value in COMPLETE.items():
        environment.delenv(name)
        (tmp_path / name).write_text(f"{value}\n")
    environment.setenv("WORKER_SECRETS_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module", name="pem")
def _pem() -> str:
    """A private key and its certificate."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    return (authority.private_key_pem.bytes() + authority.cert_pem.bytes()).decode()
