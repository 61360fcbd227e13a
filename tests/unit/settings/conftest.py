"""All settings that have no default, in variables or in files."""

from pathlib import Path

import pytest
import trustme

from tests.unit.settings.environment import COMPLETE, Environment, put


@pytest.fixture(name="environment")
def _environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """All that has no default is set."""
    put(monkeypatch, COMPLETE)
    return monkeypatch


@pytest.fixture(name="directory")
def _directory(environment: Environment, tmp_path: Path) -> Path:
    """All that has no default is in files, as Docker mounts secrets, and no variable but the one that says where."""
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
